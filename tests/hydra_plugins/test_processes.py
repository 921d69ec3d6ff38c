"""Sweepers in processes of their own: killed, several at once, with jobs in workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from hydra_plugins.potstill_optuna._study import open_storage
from tests.tiers import one_and_others

pytestmark = pytest.mark.slow

APP = Path(__file__).parent / "app.py"
STORAGES = {"journal": [], "sqlite": ["hydra.sweeper.storage=sqlite:///study.db"]}


def start(directory: Path, *arguments: str, seconds: float = 0.0) -> subprocess.Popen:
    command = [sys.executable, str(APP), "hydra.sweep.dir=sweep", f"+seconds={seconds}", *arguments]
    return subprocess.Popen(command, cwd=directory, env={**os.environ, "HYDRA_FULL_ERROR": "1"})


def finish(*processes: subprocess.Popen) -> None:
    assert [process.wait(timeout=240) for process in processes] == [0] * len(processes)


def log_of(directory: Path) -> list[dict[str, Any]]:
    log = directory / "sweep" / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def wait_for(directory: Path, num_done: int) -> None:
    """Until so many jobs have ended and another one is running."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        ends = [entry["end"] for entry in log_of(directory)]
        if ends.count("done") >= num_done and ends[-1:] == ["begun"]:
            return
        time.sleep(0.02)
    raise AssertionError(log_of(directory))


def study_of(directory: Path, kind: str) -> optuna.Study:
    url = f"sqlite:///{directory}/study.db" if kind == "sqlite" else str(directory / "sweep" / "study.journal")
    return optuna.load_study(study_name="sweep", storage=open_storage(url))


@pytest.mark.parametrize("kind", one_and_others(*STORAGES))
def test_a_study_that_is_killed_loses_no_trial_and_repeats_none(tmp_path, kind):
    options = ["hydra.sweeper.num_trials=6", *STORAGES[kind]]
    for num_done in (1, 3):
        process = start(tmp_path, *options, seconds=0.3)
        wait_for(tmp_path, num_done)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(start(tmp_path, *options))
    study = study_of(tmp_path, kind)
    assert [(trial.number, trial.state.name) for trial in study.trials] == [(n, "COMPLETE") for n in range(6)]
    done = [entry["number"] for entry in log_of(tmp_path) if entry["end"] == "done"]
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    values = {(entry["number"], entry["x"]) for entry in log_of(tmp_path)}
    assert values == {(trial.number, trial.params["x"]) for trial in study.trials}
    other = tmp_path / "unbroken"
    other.mkdir()
    finish(start(other, *options))
    assert [trial.params for trial in study_of(other, kind).trials] == [trial.params for trial in study.trials]


@pytest.mark.parametrize("kind", one_and_others(*STORAGES))
def test_two_workers_share_one_study(tmp_path, kind):
    options = ["hydra.sweeper.num_trials=12", *STORAGES[kind]]
    finish(*(start(tmp_path, *options, seconds=0.4) for _ in range(2)))
    study = study_of(tmp_path, kind)
    assert [(trial.number, trial.state.name) for trial in study.trials] == [(n, "COMPLETE") for n in range(12)]
    done = [entry for entry in log_of(tmp_path) if entry["end"] == "done"]
    assert sorted(entry["number"] for entry in done) == list(range(12))
    assert len({entry["process"] for entry in done}) == 2
    assert len({trial.params["x"] for trial in study.trials}) == 12


def test_a_worker_takes_over_what_another_left_when_it_was_killed(tmp_path):
    options = ["hydra.sweeper.num_trials=6"]
    first = start(tmp_path, *options, seconds=60)
    wait_for(tmp_path, 0)
    second = start(tmp_path, *options, seconds=0.2)
    deadline = time.monotonic() + 120
    while not any(entry["end"] == "done" for entry in log_of(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    finish(second)
    assert [trial.state.name for trial in study_of(tmp_path, "journal").trials] == ["COMPLETE"] * 6


@pytest.mark.parametrize("kind", one_and_others(*STORAGES))
def test_jobs_of_joblib_are_trials_of_their_own(tmp_path, kind):
    options = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.num_parallel=2", *STORAGES[kind]]
    finish(start(tmp_path, *options, "hydra.sweeper.num_trials=5"))
    study = study_of(tmp_path, kind)
    assert [(trial.number, trial.state.name) for trial in study.trials] == [(n, "COMPLETE") for n in range(5)]
    ran = {(entry["number"], entry["x"]) for entry in log_of(tmp_path)}
    assert ran == {(trial.number, trial.params["x"]) for trial in study.trials}
    assert all((tmp_path / "sweep" / str(number)).is_dir() for number in range(5))
