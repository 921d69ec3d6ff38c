"""A sweep and its jobs, as they are read back from disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.errors import UserError
from potstill.sweeps.record import Job, SweepRecord, job_of, jobs_of, own_overrides, read_sweep, write_job, write_sweep
from potstill.tracking.lock import locked
from potstill.tracking.manifest import write_json


def make(directory: Path, jobs: list[list[str]] | None) -> SweepRecord:
    sweep = SweepRecord(directory, "a/b", "train", ["seed=0,1", "log_every=1"], "grid", ["seed"], jobs, {"seed": 0})
    write_sweep(sweep)
    return sweep


def test_a_sweep_is_read_as_it_was_written(tmp_path: Path) -> None:
    sweep = make(tmp_path, [["seed=0"], ["seed=1"]])
    assert read_sweep(tmp_path) == sweep


def test_a_directory_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no sweep\.json"):
        read_sweep(tmp_path)


def test_every_end_of_a_job_is_told_from_the_others(tmp_path: Path) -> None:
    sweep = make(tmp_path, [[f"seed={seed}"] for seed in range(6)])
    for number, status in enumerate(["running", "interrupted"], start=2):
        write_json(tmp_path / str(number) / "manifest.json", {"status": status})
    (tmp_path / "4").mkdir()
    write_json(tmp_path / "5" / "manifest.json", {"status": "running"})
    write_job(tmp_path / "0", ["seed=0"], "finished", values={"val/loss": 0.5}, seconds=2.0)
    write_job(tmp_path / "1", ["seed=1"], "failed", error="no luck")
    with locked(tmp_path / "2"):
        jobs = jobs_of(sweep)
    statuses = ["finished", "failed", "running", "interrupted", "killed", "killed"]
    assert [job.status for job in jobs] == statuses
    assert jobs[0] == Job(0, tmp_path / "0", ["seed=0"], "finished", None, {"val/loss": 0.5}, 2.0)
    assert jobs[1].error == "no luck"
    assert [job.overrides for job in jobs] == sweep.jobs


def test_a_job_that_was_never_begun_is_missing(tmp_path: Path) -> None:
    sweep = make(tmp_path, [["seed=0"], ["seed=1"]])
    write_job(tmp_path / "1", ["seed=1"], "finished")
    assert [(job.number, job.status) for job in jobs_of(sweep)] == [(0, "missing"), (1, "finished")]


def test_jobs_nobody_planned_are_found_by_their_directories(tmp_path: Path) -> None:
    sweep = make(tmp_path, None)
    for number in (10, 9):
        write_job(tmp_path / str(number), [f"seed={number}"], "finished")
    (tmp_path / "study").mkdir()
    assert [(job.number, job.overrides) for job in jobs_of(sweep)] == [(9, ["seed=9"]), (10, ["seed=10"])]


def test_a_lock_that_nobody_holds_is_not_a_running_job(tmp_path: Path) -> None:
    sweep = make(tmp_path, [["seed=0"]])
    (tmp_path / "0").mkdir()
    with locked(tmp_path / "0"):
        assert job_of(sweep, 0).status == "running"
    assert job_of(sweep, 0).status == "killed"


def test_own_overrides_are_those_that_vary(tmp_path: Path) -> None:
    assert own_overrides(["seed=1", "log_every=1", "seed.x=2"], make(tmp_path, None)) == ["seed=1"]
