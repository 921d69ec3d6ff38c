"""Jobs that a launcher sends elsewhere: each its own run, its end written down, whatever becomes of the others."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.integration.test_multirun import str_keys
from tests.tiers import one_and_others
from tests.wandb_log import read_back

LAUNCHERS = {  # and what each is told; ray: a pool of its own, of so many cores
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra.launcher.timeout_min=10"],
    "ray": ["+hydra.launcher.ray.init.num_cpus=2"],
}
# Long enough to be met by a signal, with a checkpoint every ten steps
LONG = ("optim.max_steps=200", "optim.max_epochs=null", "validate_every=10", "logger=none")
START_S, END_S = 120, 240


def require(launcher: str) -> None:
    name = launcher.removesuffix("_local")
    if importlib.util.find_spec(f"hydra_plugins.hydra_{name}_launcher") is None:
        why = "it needs cloudpickle 2, and joblib a later one: an environment of its own" if name == "ray" else "extras"
        pytest.skip(f"hydra-{name}-launcher is not installed ({why})")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command line as a process of its own; afterwards it and what it started are gone."""
    started: list[psutil.Process] = []

    def call(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "potstill", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        started.append(psutil.Process(process.pid))
        return process

    yield call
    for process in started:
        if process.is_running():
            for each in (*process.children(recursive=True), process):
                each.kill()


def jobs(sweep: Path) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in sorted(sweep.glob("*/job.json"))]


def wait_for(*files: Path) -> None:
    give_up_at = time.monotonic() + START_S
    while not all(file.exists() for file in files):
        assert time.monotonic() < give_up_at, f"missing: {[str(file) for file in files if not file.exists()]}"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", one_and_others(*LAUNCHERS))
def test_jobs_elsewhere_are_runs_of_their_own_and_bad_input_of_one_stops_no_other(
    start: Callable[..., subprocess.Popen[str]], launcher: str, tmp_path: Path
) -> None:
    require(launcher)
    swept = "optim.optimizer.lr=0.1,-1.0,0.2"
    process = start(
        *("train", "-m", f"hydra/launcher={launcher}", *LAUNCHERS[launcher]),
        *("debug=one_batch", "logger=wandb", "logger.mode=offline", "run.dir=jobs", swept),
    )
    shown, _ = process.communicate(timeout=END_S)
    assert process.returncode == 2, shown
    sweep = tmp_path / "jobs"
    assert [job["status"] for job in jobs(sweep)] == ["finished", "refused", "finished"]
    runs = [read_back(sweep / number) for number in "02"]
    assert runs[0]["run_id"] != runs[1]["run_id"]
    assert all("val/loss" in str_keys(run) for run in runs)
    for own, other in (("0", "2"), ("2", "0")):
        log = (sweep / own / "train.log").read_text()
        assert log.count(f"jobs/{own}/student") == 1
        assert f"jobs/{other}/" not in log
    assert "1 refused of 3 jobs" in shown


@pytest.mark.slow
@pytest.mark.thorough
def test_a_killed_worker_costs_no_more_than_its_last_steps(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    require("joblib")
    process = start("train", "-m", "hydra/launcher=joblib", *LAUNCHERS["joblib"], *LONG, "run.dir=jobs", "seed=0,1,2")
    sweep = tmp_path / "jobs"
    wait_for(*(sweep / number / "checkpoints/last.ckpt" for number in "01"))
    workers = psutil.Process(process.pid).children(recursive=True)
    max(workers, key=lambda worker: worker.cpu_times().user).kill()
    shown, _ = process.communicate(timeout=END_S)
    assert process.returncode == 1
    assert "Traceback" not in shown
    assert f"potstill sweep resume {sweep}" in shown
    again = start("sweep", "resume", str(sweep))
    shown, _ = again.communicate(timeout=END_S)
    assert again.returncode == 0, shown
    assert [job["status"] for job in jobs(sweep)] == ["finished"] * 3
    assert shown.count("Going on after step") == 2


@pytest.mark.slow
@pytest.mark.thorough
def test_a_job_that_its_scheduler_begins_again_goes_on(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    require("submitit_local")
    process = start("train", "-m", "hydra/launcher=submitit_local", *LONG, "run.dir=jobs", "seed=0")
    sweep = tmp_path / "jobs"
    wait_for(sweep / "0/checkpoints/last.ckpt")
    parts = psutil.Process(process.pid).children(recursive=True)
    [job] = [part for part in parts if "submitit.core._submit" in part.cmdline()]
    job.send_signal(signal.SIGUSR2)  # what SLURM sends before the time is up, or to make room
    shown, _ = process.communicate(timeout=END_S)
    assert process.returncode == 0, shown
    assert [job["status"] for job in jobs(sweep)] == ["finished"]
    [log] = sweep.glob(".submitit/*/*_log.out")
    assert log.read_text().count("Going on after step") == 1
