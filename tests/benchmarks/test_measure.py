"""Paired measurements: what is compared with what, and that memory is that of the work alone."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import measure
from benchmarks.measure import Figure, Report

MB = 10**6


def seconds(*values: float) -> list[dict[str, float]]:
    return [{"wall": value, "cpu": value} for value in values]


def test_every_round_runs_every_variant_once_and_none_is_always_first() -> None:
    order: list[str] = []
    variants = {name: lambda name=name: order.append(name) for name in "abc"}
    rounds = measure.in_turns(variants, 3, num_warmups=1)
    assert order[:3] == ["a", "b", "c"], "of the warm-up"
    assert order[3:] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert {name: len(taken) for name, taken in rounds.items()} == {"a": 3, "b": 3, "c": 3}


def test_repeated_calls_are_divided_by_their_number() -> None:
    calls: list[int] = []
    rounds = measure.in_turns({"a": lambda: calls.append(sum(range(100_000)))}, 2, num_warmups=0, repeats=5)
    assert len(calls) == 10
    alone = measure.in_turns({"a": lambda: sum(range(500_000))}, 2, num_warmups=0)
    assert rounds["a"][0]["cpu"] < alone["a"][0]["cpu"]


def test_a_slow_round_meets_both_variants_and_leaves_their_ratio_alone() -> None:
    rounds = {"ours": seconds(1, 1, 10, 1), "peer": seconds(2, 2, 20, 2)}
    assert measure.ratio(rounds, "ours", "peer").value == 0.5
    assert measure.difference(rounds, "peer", "ours").value == 1


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    draws = [measure.median(generator.lognormal(size=15).tolist()).interval for _ in range(2000)]
    covered = sum(low <= 1 <= high for low, high in (each for each in draws if each))
    assert 0.95 <= covered / len(draws) <= 0.98  # 0.965 by the formula


def test_so_few_values_that_no_interval_holds_have_none() -> None:
    assert measure.median([1.0, 2.0, 3.0, 4.0, 5.0]) == Figure(3.0)
    assert measure.median([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == Figure(3.5, (1.0, 6.0))


@pytest.mark.parametrize(("value", "reason"), [(None, None), (float("nan"), None), (1.0, "no peer")])
def test_no_figure_is_without_a_value_or_a_reason(value: float | None, reason: str | None) -> None:
    with pytest.raises(ValueError, match="is no measurement"):
        Figure(value, reason=reason)


def allocate(num_bytes: int, num_kept: int) -> Callable[[], None]:
    kept = [torch.ones(num_kept, dtype=torch.uint8)]

    def run() -> None:
        for _ in range(3):
            kept[0][:1] = torch.ones(num_bytes, dtype=torch.uint8)[:1]

    return run


@pytest.mark.slow
def test_the_peak_is_that_of_the_work_and_not_of_what_was_there_before() -> None:
    peak = measure.peak_bytes(allocate, 50 * MB, 200 * MB)
    assert 50 * MB <= peak < 60 * MB


def refuse() -> Callable[[], None]:
    raise ValueError("no such variant")


@pytest.mark.slow
def test_a_process_that_fails_is_no_figure(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="ended without a figure"):
        measure.peak_bytes(refuse)
    assert "no such variant" in capfd.readouterr().err


def test_a_report_keeps_figures_rounds_and_what_a_time_depends_on(tmp_path: Path) -> None:
    def measured(suite: str) -> Report:
        figures = {"time": Figure(0.5, (0.4, 0.6)), "of_peer": measure.not_measured("peer is not installed")}
        return Report(figures, {suite: {"ours": seconds(1.0)}})

    out = tmp_path / "example.json"
    measure.command("example", measured, None, ["--suite", "smoke", "--out", str(out)])
    report = json.loads(out.read_text())
    assert report["benchmark"] == "example"
    assert report["figures"]["time"] == {"value": 0.5, "interval": [0.4, 0.6], "reason": None}
    assert report["figures"]["of_peer"]["reason"] == "peer is not installed"
    assert report["rounds"] == {"smoke": {"ours": [{"wall": 1.0, "cpu": 1.0}]}}
    assert report["environment"]["torch"] == torch.__version__


def test_a_part_that_is_measured_anew_leaves_the_others_and_their_commits(tmp_path: Path) -> None:
    def measured(suite: str, only: tuple[str, ...]) -> Report:
        names = [name for name in ("a/time", "b/time") if name.startswith(only)]
        return Report({name: Figure(float(len(names))) for name in names}, {name: [suite] for name in names})

    out = tmp_path / "example.json"
    for arguments in ([], ["--only", "b"]):
        measure.command("example", measured, None, ["--suite", "cpu", "--out", str(out), *arguments], in_parts=True)
    report = json.loads(out.read_text())
    assert {name: figure["value"] for name, figure in report["figures"].items()} == {"a/time": 2.0, "b/time": 1.0}
    assert report["rounds"].keys() == {"a/time", "b/time"}
    assert report["earlier"] == {"a/time": report["environment"]["code"]}


def test_no_machine_is_named() -> None:
    text = json.dumps(measure.environment())
    assert platform.node() not in text
    assert str(Path.cwd()) not in text
