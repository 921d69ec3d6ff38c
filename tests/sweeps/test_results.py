"""What is read from the directories of runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from potstill.errors import UserError
from potstill.sweeps.results import read_results
from potstill.sweeps.varying import identity
from potstill.tracking.lock import locked
from tests.reporting.example import example
from tests.sweeps.runs import write_job, write_run, write_sweep


def test_every_job_of_a_sweep_is_read_however_it_ended(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", [[f"optim.lr={number}"] for number in range(5)])
    for number, status in enumerate(("finished", "diverged", "finished")):
        write_run(sweep / str(number), {"optim": {"lr": number}}, status=status, metrics={"val/loss": 1.0})
    write_job(sweep / "0", ["optim.lr=0"], "finished")
    write_job(sweep / "1", ["optim.lr=1"], "diverged", error="the loss is not finite", **{"val/loss": 100.0})
    write_job(sweep / "3", ["optim.lr=3"], "failed", error="out of memory")
    results = read_results([sweep])
    assert [each.status for each in results] == ["finished", "diverged", "finished", "failed", "missing"]
    assert [each.reason for each in results][1:4:2] == ["the loss is not finite", "out of memory"]
    assert results[2].reason is None, "a run that was finished before its job was killed"
    assert results[4].overrides == ["optim.lr=4"]
    assert results[0].metrics == {"val/loss": 1.0}


def test_a_run_that_is_written_now_is_running_and_a_dead_one_is_not(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="running")
    with locked(run):
        assert read_results([run])[0].status == "running"
    assert read_results([run])[0].status == "killed"


def test_numbers_that_json_cannot_hold_are_no_metrics(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "manifest.json").write_text('{"status": "finished", "metrics": {"val/loss": null, "val/accuracy": 0.5}}')
    assert read_results([run])[0].metrics == {"val/accuracy": 0.5}


def test_where_a_run_lies_makes_it_no_other_config(tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        here = {"dir": str(tmp_path / name), "name": name}
        runs.append(write_run(tmp_path / name, {"run": here, "best": {"at": f"{tmp_path / name}/checkpoints"}}))
    first, second = read_results(runs)
    assert identity(first) == identity(second)
    assert [first.name, second.name] == ["a", "b"]


def test_runs_of_several_sweeps_have_names_of_their_own(tmp_path: Path) -> None:
    for parent in ("x", "y"):
        write_sweep(tmp_path / parent / "sweep", [["seed=0"], ["seed=1"]])
        write_run(tmp_path / parent / "sweep" / "0")
        write_run(tmp_path / parent / "sweep" / "1")
    names = [each.name for each in read_results([tmp_path / "x" / "sweep", tmp_path / "y" / "sweep"])]
    assert len(set(names)) == 4
    assert names[0] == f"{tmp_path}/x/sweep/0"
    assert [each.name for each in read_results([tmp_path / "x" / "sweep", tmp_path / "y" / "sweep" / "1"])] == [
        "sweep/0",
        "sweep/1",
        "1",
    ]


def test_the_stages_of_a_recipe_are_repeats_where_only_their_seed_differs(tmp_path: Path) -> None:
    write_sweep(tmp_path / "sweep", [["seed=0"], ["seed=1"]], command="run")
    for number in range(2):
        job = tmp_path / "sweep" / str(number)
        stages = {name: {"command": "train", "is_done": True} for name in ("teacher", "baseline", "student")}
        for name in stages:
            config = {"seed": number, "teacher": {"path": f"{job}/teacher/student"}}
            write_run(job / name, config, metrics={"val/accuracy": 0.5}, overrides=["loss=ce"] * (name == "baseline"))
        evaluate = {"evaluate": {"command": "evaluate", "is_done": True}}
        (job / "manifest.json").write_text(json.dumps({"stages": stages | evaluate}))
        (job / "evaluation.json").write_text(json.dumps(example()))
    results = read_results([tmp_path / "sweep"])
    assert [each.name for each in results] == ["0/baseline", "0/student", "1/baseline", "1/student"]
    assert identity(results[0]) == identity(results[2])
    assert results[0].choices == {"loss": "ce", "stage": "baseline"}
    assert [each.metrics["evaluation/accuracy"] for each in results[:2]] == [0.6, 0.8]
    assert results[1].metrics["cost/parameters"] == 22_713_216
    assert results[1].worst_slice == {"slice": "domain=bank", "metric": "accuracy", "value": 0.7, "n": 450}


def test_a_recipe_that_failed_is_listed_beside_the_stages_it_finished(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path / "sweep", [["seed=0"]], command="run")
    write_run(sweep / "0" / "baseline")
    stages = {"baseline": {"command": "train", "is_done": True}, "student": {"command": "train", "is_done": False}}
    (sweep / "0" / "manifest.json").write_text(json.dumps({"stages": stages}))
    write_job(sweep / "0", ["seed=0"], "failed", error="no space left")
    found = {each.name: (each.status, each.reason) for each in read_results([sweep])}
    assert found == {"0/baseline": ("finished", None), "0": ("failed", "no space left")}


def test_what_is_no_sweep_and_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    with pytest.raises(UserError, match="holds neither a sweep nor a run"):
        read_results([tmp_path / "notes"])
    with pytest.raises(UserError, match="is no directory"):
        read_results([tmp_path / "nowhere"])


def test_a_sweep_in_which_nothing_was_started_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing was started"):
        read_results([write_sweep(tmp_path / "sweep", [])])
