"""The table of losses, from a sweep on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from benchmarks import method_table
from tests.sweeps.runs import write_job, write_run, write_sweep

ACCURACY = {"ce": [0.70, 0.71, 0.75], "kd": [0.80, 0.83, 0.82]}
NUM_INSIDE, NUM_OUTSIDE = 100, 300


def evaluation(accuracy: float) -> dict[str, Any]:
    def group(num_rows: int, value: float) -> dict[str, Any]:
        return {"n": num_rows, "num_labelled": num_rows, "accuracy": value}

    slices = {"domain=oos": group(NUM_INSIDE, 0.1), "domain=bank": group(NUM_OUTSIDE, accuracy - 0.05)}
    report = {"overall": group(NUM_INSIDE + NUM_OUTSIDE, accuracy), "slices": slices, "cost": {}}
    header = {"schema_version": 1, "task": "text_classification", "metric": "accuracy", "higher_is_better": True}
    return {**header, "models": {"student": report}}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two losses, three seeds, the seeds in another order for each."""
    pairs = [(loss, seed) for loss in ACCURACY for seed in ([0, 1, 2] if loss == "ce" else [2, 0, 1])]
    jobs = [[f"loss={loss}", f"seed={seed}"] for loss, seed in pairs]
    directory = write_sweep(tmp_path / "sweep", jobs)
    for number, ((loss, seed), overrides) in enumerate(zip(pairs, jobs, strict=True)):
        config = {"seed": seed, "run": {"choices": {"loss": loss}}}
        run = write_run(directory / str(number), config, overrides=overrides)
        write_job(run, overrides, "finished")
        (run / "evaluation.json").write_text(json.dumps(evaluation(ACCURACY[loss][seed])))
    return directory


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, str]]:
    method_table.main(arguments)
    header, _, *lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    return {cells[0]: dict(zip(header[1:], cells[1:], strict=True)) for cells in lines}


def test_losses_are_paired_by_seed_whatever_the_order_of_the_jobs(
    sweep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(capsys, str(sweep))
    assert list(found) == ["`kd`", "`ce`"]  # the better first
    differences = [100 * (kd - ce) for kd, ce in zip(ACCURACY["kd"], ACCURACY["ce"], strict=True)]
    low, high = stats.t.interval(0.95, 2, loc=sum(differences) / 3, scale=stats.sem(differences))
    assert found["`kd`"]["accuracy - ce"] == f"{sum(differences) / 3:+.2f} [{low:+.2f}, {high:+.2f}]"
    assert found["`kd`"]["accuracy"] == "81.67 +- 1.53"
    assert found["`ce`"]["accuracy - ce"] == "-"


def test_the_worst_slice_is_among_those_that_count(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rows(capsys, str(sweep))["`kd`"]["accuracy, worst slice"] == "10.00 +- 0.00"
    found = rows(capsys, str(sweep), "--without", "domain=oos")
    assert found["`kd`"]["accuracy, worst slice of the others"] == "76.67 +- 1.53"


def test_the_cost_of_a_step_stands_with_its_loss(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cost = tmp_path / "cost.json"
    cost.write_text(json.dumps({"losses": {"kd": {"live": 5.25, "remembered": 1.125}}}))
    found = rows(capsys, str(sweep), "--cost", str(cost))
    assert (found["`kd`"]["step, live"], found["`kd`"]["step, remembered"]) == ("5.25", "1.12")
    assert found["`ce`"]["step, live"] == "-"


def test_a_loss_that_lacks_a_seed_is_refused(sweep: Path) -> None:
    config = sweep / "5" / "config.yaml"
    config.write_text(config.read_text().replace("seed: 1", "seed: 7"))
    with pytest.raises(SystemExit, match=r"loss=ce has seeds \[0, 1, 2\], others \[0, 1, 2, 7\]"):
        method_table.main([str(sweep)])


def test_a_reference_that_did_not_run_is_refused(sweep: Path) -> None:
    with pytest.raises(SystemExit, match="No run has loss=dkd"):
        method_table.main([str(sweep), "--reference", "dkd"])
