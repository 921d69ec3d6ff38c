"""The table over seeds, from files on disk."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "seed_table.py"
STUDENT, BASELINE, INSIDE, OUTSIDE = [0.80, 0.82, 0.90], [0.70, 0.71, 0.73], 100, 300


def evaluation(accuracy: dict[str, float], inside: dict[str, float], metric: str = "accuracy") -> dict[str, Any]:
    """Two slices; the given values are those of the whole and of the slice `domain=oos`."""

    def report(model: str) -> dict[str, Any]:
        def group(num_rows: int, value: float) -> dict[str, Any]:
            return {"n": num_rows, "num_labelled": num_rows, metric: value}

        slices = {"domain=oos": group(INSIDE, inside[model]), "domain=bank": group(OUTSIDE, 0.95)}
        return {"overall": group(INSIDE + OUTSIDE, accuracy[model]), "slices": slices}

    return {
        "schema_version": 1,
        "task": "text_classification" if metric == "accuracy" else "causal_lm",
        "metric": metric,
        "higher_is_better": metric == "accuracy",
        "models": {model: report(model) for model in accuracy},
    }


def write(folder: Path, content: dict[str, Any]) -> str:
    folder.mkdir()
    (folder / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")
    return str(folder)


@pytest.fixture
def seeds(tmp_path: Path) -> list[str]:
    pairs = zip(STUDENT, BASELINE, strict=True)
    contents = [evaluation({"student": s, "baseline": b}, {"student": 0.5, "baseline": 0.2}) for s, b in pairs]
    return [write(tmp_path / f"seed_{number}", content) for number, content in enumerate(contents)]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the script and gives its rows: `{label: cells}`."""

    def run(*arguments: str) -> dict[str, list[str]]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
        return {label: cells for label, *cells in rows}

    return run


def test_cells_are_mean_and_sample_deviation_over_seeds(table: Any, seeds: list[str]) -> None:
    assert table(*seeds)["accuracy"][:2] == ["84.00 +- 5.29", "71.33 +- 1.53"]


def test_the_difference_is_paired_by_seed(table: Any, seeds: list[str]) -> None:
    low, high = stats.ttest_rel(STUDENT, BASELINE).confidence_interval(0.95)
    rows = table(*seeds)
    assert rows["3 seeds"] == ["student", "baseline", "student - baseline"]
    assert rows["accuracy"][2] == f"+12.67 [{100 * low:+.2f}, {100 * high:+.2f}]"


def test_the_student_is_compared_with_another_model_where_that_is_asked_for(table: Any, tmp_path: Path) -> None:
    contents = [{"student": student, "other": other} for student, other in zip(STUDENT, BASELINE, strict=True)]
    seeds = [write(tmp_path / f"{n}", evaluation(each, each)) for n, each in enumerate(contents)]
    assert table(*seeds)["3 seeds"] == ["student", "other"]
    rows = table(*seeds, "--against", "other")
    assert rows["3 seeds"] == ["student", "other", "student - other"]
    assert rows["accuracy"][2].startswith("+12.67 [")


def test_the_rows_outside_a_slice_are_weighed_by_their_number(table: Any, seeds: list[str]) -> None:
    row = table(seeds[0], "--without", "domain=oos")["accuracy without domain=oos"]
    assert row[0] == f"{100 * (400 * 0.80 - 100 * 0.5) / 300:.2f}"


def test_the_perplexity_outside_a_slice_is_a_mean_of_logarithms(table: Any, tmp_path: Path) -> None:
    content = evaluation({"student": 16.0}, {"student": 2.0}, metric="perplexity")
    rows = table(write(tmp_path / "seed", content), "--without", "domain=oos")
    assert rows["perplexity without domain=oos"] == [f"{(16**4 / 2) ** (1 / 3):.2f}"]
    assert rows["perplexity, worst slice of the others"] == ["0.95"]


def test_the_worst_slice_leaves_out_what_is_left_out(table: Any, seeds: list[str]) -> None:
    assert table(*seeds)["accuracy, worst slice"][0] == "50.00 +- 0.00"
    assert table(*seeds, "--without", "domain=oos")["accuracy, worst slice of the others"][0] == "95.00 +- 0.00"


def test_chosen_slices_are_shown(table: Any, seeds: list[str]) -> None:
    assert table(*seeds, "--slice", "domain=bank")["accuracy, domain=bank"][0] == "95.00 +- 0.00"


def test_one_seed_has_no_spread(table: Any, seeds: list[str]) -> None:
    assert table(seeds[0])["accuracy"] == ["80.00", "70.00", "+10.00"]


def test_a_value_missing_in_one_seed_is_not_averaged_over_the_others(table: Any, seeds: list[str]) -> None:
    file = Path(seeds[1]) / "evaluation.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["models"]["student"]["overall"]["accuracy"] = None
    file.write_text(json.dumps(content), encoding="utf-8")
    assert table(*seeds)["accuracy"] == ["-", "71.33 +- 1.53", "-"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--slice", "domain=banc"], "No slice is called domain=banc. There are: domain=oos, domain=bank"),
        (["--against", "gold"], "No model is called gold. There are: student, baseline"),
        (["nowhere"], "nowhere/evaluation.json does not exist"),
        (["language_model"], "task is causal_lm, text_classification"),
        (["student_only"], "did not evaluate the same models"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(
    table: Any,
    seeds: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    both = {"student": 10.0, "baseline": 10.0}
    write(tmp_path / "language_model", evaluation(both, both, metric="perplexity"))
    write(tmp_path / "student_only", evaluation({"student": 0.5}, {"student": 0.5}))
    with pytest.raises(SystemExit, match=message):
        table(*seeds, *arguments)


def test_the_time_of_an_epoch_is_read_from_each_stage(table: Any, tmp_path: Path) -> None:
    content = evaluation({"student": 0.8, "baseline": 0.7}, {"student": 0.5, "baseline": 0.2})
    folder = Path(write(tmp_path / "seed_0", content))
    (folder / "student").mkdir()
    (folder / "student" / "manifest.json").write_text('{"training": {"seconds_per_epoch": 41.5}}')
    assert table(str(folder))["seconds per epoch, validation included"] == ["41.50", "-", "-"]
