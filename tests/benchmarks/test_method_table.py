"""The table of losses, from an evaluation a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from benchmarks import method_table

ACCURACY = {"ce": [0.70, 0.71, 0.75], "kd": [0.80, 0.83, 0.82], "dkd": [0.72, 0.73, 0.74]}
NUM_INSIDE, NUM_OUTSIDE = 100, 300


def report(accuracy: float) -> dict[str, Any]:
    def group(num_rows: int, value: float) -> dict[str, Any]:
        return {"n": num_rows, "num_labelled": num_rows, "accuracy": value}

    slices = {"domain=oos": group(NUM_INSIDE, 0.1), "domain=bank": group(NUM_OUTSIDE, accuracy - 0.05)}
    return {"overall": group(NUM_INSIDE + NUM_OUTSIDE, accuracy), "slices": slices, "cost": {}}


@pytest.fixture
def evaluated(tmp_path: Path) -> list[str]:
    """Three seeds of three losses, one of them a column of its own, beside the teacher and the most frequent label."""
    header = {"schema_version": 1, "task": "text_classification", "metric": "accuracy", "higher_is_better": True}
    for seed in range(3):
        losses = {"student": "kd", "baseline": "ce", "dkd": "dkd"}
        models = {column: report(ACCURACY[loss][seed]) for column, loss in losses.items()}
        models |= {"teacher": report(0.9), "majority": report(0.2)}
        (tmp_path / str(seed)).mkdir()
        (tmp_path / str(seed) / "evaluation.json").write_text(json.dumps({**header, "models": models}))
    return [str(tmp_path / str(seed)) for seed in range(3)]


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, str]]:
    method_table.main(arguments)
    header, _, *lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    return {cells[0]: dict(zip(header[1:], cells[1:], strict=True)) for cells in lines}


def test_losses_are_paired_by_seed_and_called_by_their_names(
    evaluated: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(capsys, *evaluated)
    assert list(found) == ["`kd`", "`dkd`", "`ce`"]  # the best first; what nobody trained is no loss
    differences = [100 * (kd - ce) for kd, ce in zip(ACCURACY["kd"], ACCURACY["ce"], strict=True)]
    low, high = stats.t.interval(0.95, 2, loc=sum(differences) / 3, scale=stats.sem(differences))
    assert found["`kd`"]["accuracy - ce"] == f"{sum(differences) / 3:+.2f} [{low:+.2f}, {high:+.2f}]"
    assert found["`kd`"]["accuracy"] == "81.67 +- 1.53"
    assert found["`ce`"]["accuracy - ce"] == "-"


def test_the_worst_slice_is_among_those_that_count(evaluated: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(capsys, *evaluated)["`kd`"]["accuracy, worst slice"] == "10.00 +- 0.00"
    found = rows(capsys, *evaluated, "--without", "domain=oos")
    assert found["`kd`"]["accuracy, worst slice of the others"] == "76.67 +- 1.53"


def test_the_cost_of_a_step_stands_with_its_loss(
    evaluated: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = tmp_path / "cost.json"
    cost.write_text(json.dumps({"losses": {"kd": {"live": 5.25, "remembered": 1.125}}}))
    found = rows(capsys, *evaluated, "--cost", str(cost))
    assert (found["`kd`"]["step, live"], found["`kd`"]["step, remembered"]) == ("5.25", "1.12")
    assert found["`ce`"]["step, live"] == "-"


def test_columns_are_those_asked_for(evaluated: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, *evaluated, "--column", "accuracy, worst slice")
    assert list(found["`kd`"]) == ["accuracy, worst slice", "accuracy, worst slice - ce"]
    with pytest.raises(SystemExit, match="No value is called recall"):
        method_table.main([*evaluated, "--column", "recall"])


def test_a_seed_that_lacks_a_loss_is_refused(evaluated: list[str]) -> None:
    path = Path(evaluated[1], "evaluation.json")
    evaluation = json.loads(path.read_text())
    del evaluation["models"]["dkd"]
    path.write_text(json.dumps(evaluation))
    with pytest.raises(SystemExit, match="did not evaluate the same models"):
        method_table.main(evaluated)
