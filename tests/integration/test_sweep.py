"""Sweeps through the command line: cut off, gone on with, refused."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from potstill.commands.sweep_job import SweepJob
from potstill.config.compose import compose_raw
from potstill.sweeps.record import SweepRecord, jobs_of, read_sweep
from tests.processes import command_line, started
from tests.wandb_log import read_part, wandb_directories

SHORT = ("debug=one_batch", "run.dir=jobs")


def statuses(directory: str | Path = "jobs") -> list[str]:
    """By number; a job without a word of its own: `-`."""
    numbers = sorted((path for path in Path(directory).iterdir() if path.is_dir()), key=lambda path: int(path.name))
    return [
        json.loads((path / "job.json").read_text())["status"] if (path / "job.json").exists() else "-"
        for path in numbers
    ]


def content(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path).read_text())


@pytest.mark.slow
def test_a_killed_grid_runs_only_what_is_missing(potstill):
    grid = ("loss.term.ce.weight=1,2,3", "seed=0,1", "logger=wandb", "logger.mode=offline")
    with started(command_line, "train", "-m", *SHORT, *grid) as process:
        while not Path("jobs/2/manifest.json").exists():
            assert process.is_alive()
            time.sleep(0.01)
        process.kill()
        process.join()
    before = {number: Path(f"jobs/{number}/job.json").stat().st_mtime_ns for number in range(2)}
    assert statuses() == ["finished"] * 2 + ["-"]

    shown = potstill("sweep", "status", "jobs")
    assert shown.code == 0
    assert [shown.out.count(f" {status} ") for status in ("finished", "killed", "missing")] == [2, 1, 3]

    outcome = potstill("sweep", "resume", "jobs")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("\nJob ") == 4
    assert statuses() == ["finished"] * 6
    assert {number: Path(f"jobs/{number}/job.json").stat().st_mtime_ns for number in range(2)} == before

    parts = [wandb_directories(Path(f"jobs/{number}"))[-1] for number in range(6)]  # of the killed one, the last
    assert len({read_part(part)["run_id"] for part in parts}) == 6
    own = [content(f"jobs/{number}/job.json")["overrides"] for number in range(6)]
    assert own == [[f"loss.term.ce.weight={weight}", f"seed={seed}"] for weight in (1, 2, 3) for seed in (0, 1)]

    assert "Nothing is missing" in potstill("sweep", "resume", "jobs").out


@pytest.mark.slow
def test_a_sweep_ends_with_the_others_and_says_which_did_not(potstill, monkeypatch):
    from potstill.commands import train

    fit = train.fit

    def unlucky(trainer, module, *rest) -> dict[str, float]:
        job = Path(trainer.checkpoint_callback.dirpath).parent.name
        if job == "1":
            raise RuntimeError("out of luck")
        return fit(trainer, module, *rest)

    monkeypatch.setattr(train, "fit", unlucky)
    widths = "student.config.hidden_sizes=[8,16],[8,300000]"  # the second asks for 3 TB
    diverging = "optim.optimizer.lr=1.0e-3,1.0e-2,1.0e20"
    outcome = potstill("train", "-m", "debug=few_steps", "run.dir=jobs", widths, diverging)
    assert statuses() == ["finished", "failed", "diverged", *["failed"] * 3]
    assert outcome.code == 1
    assert "4 failed of 6 jobs" in outcome.err
    assert "Job 1 failed: out of luck" in outcome.out
    assert "Job 2 diverged: After" in outcome.out
    assert "Job 3 failed: Out of memory" in outcome.out
    assert content("jobs/2/job.json")["values"]["val/loss"] == 100.0
    assert [content(f"jobs/{number}/manifest.json")["status"] for number in (1, 2)] == ["failed", "diverged"]

    monkeypatch.setattr(train, "fit", fit)
    assert potstill("sweep", "resume", "jobs").code == 1
    assert statuses() == ["finished", "finished", "diverged", *["failed"] * 3]


@pytest.mark.slow
def test_a_job_is_told_where_it_stands(potstill):
    assert potstill("train", "-m", *SHORT, "loss.term.ce.weight=1,2").code == 0
    run = OmegaConf.load("jobs/1/config.yaml").run
    assert (run.sweep, run.name) == (f"{Path.cwd().name}/jobs", "jobs-1")
    assert run.swept == {"loss.term.ce.weight": 2}
    assert (run.choices["data"], run.choices["loss"], run.choices["debug"]) == ("digits", "ce", "one_batch")
    assert not run.trial, "only a study has trials"


def test_a_sweeper_gets_what_the_config_says(tmp_path, monkeypatch):
    sweep = SweepRecord(tmp_path, "a/b", "train", [], "grid", [], None, {})
    metrics = {"val/loss": 0.5, "val/accuracy": 0.75, "cost/parameters": 10}
    monkeypatch.setattr("potstill.commands.train.main", lambda _: metrics)
    for returns, expected in ([["val/loss"], 0.5], [["val/accuracy", "cost/parameters"], (0.75, 10)]):
        config = composed_job(tmp_path, [f"returns=[{','.join(returns)}]"])
        assert SweepJob("train", sweep).run(config) == expected


def composed_job(directory: Path, overrides: list[str]) -> DictConfig:
    """A job's config, and Hydra told of the job as a launcher does."""
    config = compose_raw("train", overrides, with_hydra=True)
    with open_dict(config.hydra):
        config.hydra.runtime.output_dir = str(directory / "0")
    HydraConfig.instance().set_config(config)
    return OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])


@pytest.mark.slow
def test_diverged_jobs_alone_are_no_failure(potstill):
    assert potstill("train", "-m", "debug=few_steps", "run.dir=jobs", "optim.optimizer.lr=1.0e20,2.0e20").code == 0


@pytest.mark.slow
@pytest.mark.thorough
def test_an_interrupted_job_goes_on_from_its_checkpoint(potstill):
    options = ("debug=few_steps", "run.dir=jobs", "callbacks.last.every_steps=1", "seed=0,1", "optim.max_steps=200")
    with started(command_line, "train", "-m", *options) as process:
        while not Path("jobs/0/checkpoints/last.ckpt").exists():
            assert process.is_alive()
            time.sleep(0.01)
        process.terminate()
        process.join()
    assert process.exitcode == 130
    assert "interrupted" in potstill("sweep", "status", "jobs").out
    outcome = potstill("sweep", "resume", "jobs")
    assert outcome.code == 0, outcome.err
    assert "Going on after step" in outcome.out
    assert statuses() == ["finished", "finished"]


@pytest.mark.slow
def test_a_run_that_ended_before_its_job_could_say_so_is_not_run_again(potstill):
    assert potstill("train", "-m", *SHORT, "seed=0,1").code == 0
    Path("jobs/0/job.json").unlink()
    shutil.rmtree("jobs/1")
    outcome = potstill("sweep", "resume", "jobs")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("\nJob ") == 1
    assert statuses() == ["-", "finished"]
    assert [job.status for job in jobs_of(read_sweep(Path("jobs")))] == ["finished"] * 2


@pytest.mark.slow
def test_a_job_of_a_study_that_is_begun_again_returns_what_it_had(potstill, monkeypatch):
    assert potstill("train", "-m", *SHORT, "seed=0,1").code == 0
    sweep, config = read_sweep(Path("jobs").absolute()), composed_job(Path("jobs").absolute(), ["debug=one_batch"])
    monkeypatch.setattr("potstill.commands.train.main", lambda _: pytest.fail("it would be trained again"))
    expected = content("jobs/0/manifest.json")["metrics"]["val/loss"]
    assert SweepJob("train", sweep).run(config) == expected
    Path("jobs/0/job.json").unlink()
    assert SweepJob("train", sweep).run(config) == expected


@pytest.mark.slow
def test_hydras_own_sweeper_ends_in_the_same_table(potstill):
    outcome = potstill("train", "-m", *SHORT, "hydra/sweeper=basic", "optim.optimizer.lr=-1,0.1")
    assert outcome.code == 2
    assert statuses() == ["refused", "finished"]
    assert "1 refused of 2 jobs" in outcome.err
    assert "Traceback" not in outcome.err


def test_what_a_launcher_raises_is_told_and_not_taken_for_success(potstill, monkeypatch):
    class Lost(Launcher):
        def setup(self, **_: Any) -> None: ...

        def launch(self, job_overrides: Any, initial_job_idx: int) -> Any:
            Path("jobs/0").mkdir()
            raise ValueError(f"a worker is gone, with {len(job_overrides)} jobs from {initial_job_idx} on")

    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *_, **__: Lost())
    outcome = potstill("train", "-m", *SHORT, "seed=0,1")
    assert outcome.code == 1
    assert "The launcher gave up: a worker is gone" in outcome.err
    assert "1 killed, 1 missing of 2 jobs" in outcome.err


@pytest.mark.slow
def test_evaluations_are_a_sweep_too(potstill):
    assert potstill("train", "-m", *SHORT, "seed=0,1").code == 0
    where = "hydra.sweep.dir=evaluations"
    outcome = potstill("evaluate", "-m", "run=jobs/0,jobs/1,nowhere", "logger=none", where)
    assert outcome.code == 2
    assert statuses("evaluations") == ["finished", "finished", "refused"]
    assert Path("jobs/1/evaluation.json").exists()


@pytest.mark.slow
def test_a_sweep_from_a_file_is_one_of_hydra(potstill):
    Path("mine/grid").mkdir(parents=True)
    Path("mine/grid/seeds.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /optim: sgd\nlog_every: 3\nvalidate_every: 7\n"
        "hydra:\n  sweeper:\n    params:\n      seed: 0,1\n"
    )
    outcome = potstill("sweep", "start", "mine/grid/seeds.yaml", *SHORT)
    assert outcome.code == 0, outcome.err
    assert statuses() == ["finished", "finished"]
    config = Path("jobs/1/config.yaml").read_text()
    assert "seed: 1" in config
    assert "torch.optim.SGD" in config
    assert "validate_every: 7" in config
    assert "log_every: 1" in config, "a debug preset comes after the file"


def test_a_sweep_that_is_no_longer_what_it_was_is_not_gone_on_with(potstill):
    Path("mine/grid").mkdir(parents=True)
    file = Path("mine/grid/seeds.yaml")
    text = "# @package _global_\nlog_every: 3\nhydra:\n  sweeper:\n    params:\n      seed: 0,1\n"
    file.write_text(text)
    refused_job = ("optim.optimizer.lr=-1",)  # no training needed for this
    assert potstill("sweep", "start", str(file), "run.dir=jobs", *refused_job).code == 2
    file.write_text(text.replace("log_every: 3", "log_every: 4"))
    outcome = potstill("sweep", "resume", "jobs")
    assert outcome.code == 2
    assert "callbacks.throughput.window_steps, log_every" in " ".join(outcome.err.split())
    file.write_text(text.replace("0,1", "0,1,2"))
    assert "Changed: the jobs" in " ".join(potstill("sweep", "resume", "jobs").err.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sweep",), "There are:"),
        (("sweep", "resum", "jobs"), "is no action of a sweep"),
        (("sweep", "status", "nowhere"), "holds no sweep.json"),
        (("sweep", "resume", "nowhere"), "holds no sweep.json"),
        (("sweep", "start", "nowhere.yaml"), "is no YAML file"),
        (("sweep", "start", __file__), "is no YAML file"),
        (("train", "-m", "seed=0,1", "lr=0.1"), "is no key of the config"),
        (("train", "-m", "seed=0,1", "returns=[val/acuracy]"), "Nearest: 'val/accuracy'"),
        (("train", "-m", "seed=0,1", "hydra/launcher=joblab"), "joblib"),
    ],
)
def test_wrong_input_is_refused(potstill, arguments, said):
    outcome = potstill(*arguments)
    assert outcome.code == 2
    assert said in " ".join((outcome.err + outcome.out).split())
    assert "Traceback" not in outcome.err


def test_a_sweep_is_not_written_over(potstill):
    refused = ("train", "-m", "run.dir=jobs", "optim.optimizer.lr=-1,-2")
    assert potstill(*refused).code == 2
    outcome = potstill(*refused)
    assert outcome.code == 2
    assert "potstill sweep resume" in outcome.err
    assert "holds a sweep already" in " ".join(outcome.err.split())  # wrapped somewhere, the path being long


def test_a_part_of_a_grid_is_run_and_later_the_rest(potstill):
    part = ("train", "-m", "run.dir=jobs", "optim.optimizer.lr=-1,-2,-3", "hydra.sweeper.only=[1]")
    outcome = potstill(*part)
    assert outcome.code == 1, "a part is not the whole"
    assert statuses() == ["refused"]
    potstill("sweep", "resume", "jobs")
    assert statuses() == ["refused"] * 3


def test_the_rest_of_a_sweep_stays_what_it_was_to_be(potstill):
    assert potstill("train", "-m", "run.dir=jobs", "optim.optimizer.lr=-1,-2").code == 2
    outcome = potstill("sweep", "resume", "jobs", "seed=2")
    assert outcome.code == 2
    assert "only how it is launched may change" in " ".join(outcome.err.split())
