"""Figures against goals: what is missed is said, and what was not measured is no miss."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import run

GOALS = {
    "head/time": {"at_most": 0.75},
    "head/rate": {"at_least": 5.0},
    "head/of_peer": {"at_most": 0.85},
    "head/elsewhere": {"at_most": 0.1},
    "padding/slots": {"at_most": 1.15},
}


def report(**values: float | None) -> dict:
    reasons = {name: "peer is not installed" if value is None else None for name, value in values.items()}
    figures = {name: {"value": value, "interval": None, "reason": reasons[name]} for name, value in values.items()}
    return {"head": {"figures": figures}}


def test_a_missed_goal_is_named_with_its_figure() -> None:
    lines = list(run.compared(GOALS, report(time=0.8, rate=4.0, of_peer=0.8)))
    assert lines == [
        "MISSED     head/time: 0.8, goal at most 0.75",
        "MISSED     head/rate: 4, goal at least 5.0",
        "met        head/of_peer: 0.8, goal at most 0.85",
        "unmeasured head/elsewhere: goal at most 0.1; no part of this suite",
    ]


def test_a_missing_peer_is_not_measured_and_no_miss() -> None:
    lines = list(run.compared(GOALS, report(time=0.75, rate=5.0, of_peer=None)))
    assert [line.split()[0] for line in lines] == ["met", "met", "unmeasured", "unmeasured"]
    assert lines[2].endswith("peer is not installed")


def test_a_known_miss_is_a_miss_and_says_why() -> None:
    goals = {"head/time": {"at_most": 0.75, "why_missed": "the products alone take 0.77"}}
    (line,) = run.compared(goals, report(time=0.8))
    assert line == "MISSED     head/time: 0.8, goal at most 0.75 (the products alone take 0.77)"


@pytest.mark.parametrize(
    "line",
    ['"head/time" = { at_mots = 0.75 }', '"haed/time" = { at_most = 0.75 }', '"head/time" = 0.75', '"head/time" = {}'],
)
def test_a_goal_that_would_not_be_read_is_refused(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "BENCHMARKS", {"head": ("smoke",)})
    (tmp_path / "goals.toml").write_text(line)
    with pytest.raises(ValueError, match="is no goal"):
        run.read_goals(tmp_path / "goals.toml")


def test_reports_go_to_one_file_or_to_one_each(tmp_path: Path) -> None:
    run.write(tmp_path / "all.json", report(time=0.5))
    run.write(tmp_path / "each", report(time=0.5))
    assert json.loads((tmp_path / "all.json").read_text()).keys() == {"head"}
    assert json.loads((tmp_path / "each" / "head.json").read_text())["figures"]["time"]["value"] == 0.5


@pytest.mark.parametrize(("value", "code"), [(0.7, 0), (0.8, 1)])
def test_the_exit_code_is_that_of_the_worst_goal(
    value: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "BENCHMARKS", {"head": ("cpu",), "padding": ("gpu",)})
    monkeypatch.setattr(run, "report_of", lambda name, _suite, _folder: report(time=value)[name])
    (tmp_path / "goals.toml").write_text('"head/time" = { at_most = 0.75 }')
    arguments = ["--suite", "cpu", "--check", str(tmp_path / "goals.toml")]
    if code:
        with pytest.raises(SystemExit) as left:
            run.main(arguments)
        assert left.value.code == code
    else:
        run.main(arguments)
    assert f"head/time: {value}" in capsys.readouterr().out


def test_a_benchmark_that_fails_is_a_failure_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "BENCHMARKS", {"head": ("cpu",), "padding": ("cpu",)})
    found = {"head": None, "padding": report(time=1.0)["head"]}
    monkeypatch.setattr(run, "report_of", lambda name, _suite, _folder: found[name])
    with pytest.raises(SystemExit):
        run.main(["--suite", "cpu"])
    assert "FAILED     head" in capsys.readouterr().out


@pytest.mark.slow
def test_the_goals_that_need_no_clock_are_met(capfd: pytest.CaptureFixture[str]) -> None:
    run.main(["--suite", "smoke", "--check", str(Path(run.__file__).with_name("goals.toml"))])
    assert "met        padding/lognormal/slots_per_token" in capfd.readouterr().out


@pytest.mark.slow
def test_measuring_needs_nothing_but_torch() -> None:
    absent = "sys.modules.update(dict.fromkeys(('hydra', 'omegaconf', 'pytorch_lightning', 'wandb', 'transformers')))"
    code = f"import sys; {absent}; import benchmarks.measure, benchmarks.run"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(run.__file__).parents[1])
