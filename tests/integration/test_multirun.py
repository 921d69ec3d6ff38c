"""Several jobs in one process: each its own run, and one that fails spoils no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.wandb_log import read_back

MULTIRUN = ("train", "-m", "debug=one_batch", "run.dir=jobs")


@pytest.mark.slow
def test_two_jobs_are_two_wandb_runs(potstill):
    outcome = potstill(*MULTIRUN, "logger=wandb", "logger.mode=offline", "seed=0,1")
    assert outcome.code == 0, outcome.err
    first, second = (read_back(Path("jobs", name)) for name in ("0", "1"))
    assert first["run_id"] != second["run_id"]
    for job in (first, second):
        assert {"val/loss", "val/accuracy", "train/loss", "train/grad_norm", "status"} <= set(str_keys(job))
    configs = [Path("jobs", name, "config.yaml").read_text() for name in ("0", "1")]
    assert ["seed: 0" in configs[0], "seed: 1" in configs[1]] == [True, True]


@pytest.mark.slow
def test_an_evaluation_is_a_wandb_run_where_asked_for(potstill):
    assert potstill("train", "debug=one_batch", "run.dir=mine").code == 0
    assert potstill("evaluate", "run=mine", "bar=none", "logger=none").code == 0
    assert not Path("mine/wandb").exists()
    assert potstill("evaluate", "run=mine", "bar=none", "logger.mode=offline", "output=there").code == 0
    assert "evaluation/student/accuracy" in str_keys(read_back(Path("there")))


def str_keys(node: Any) -> list[str]:
    """Every key in `node`, however deep."""
    if isinstance(node, dict):
        return [key for name, inner in node.items() for key in (name, *str_keys(inner))]
    return [key for inner in node for key in str_keys(inner)] if isinstance(node, list) else []


@pytest.mark.slow
def test_a_job_with_bad_input_stops_no_other(potstill):
    outcome = potstill(*MULTIRUN, "optim.optimizer.lr=0.1,-1.0,0.2")
    assert outcome.code == 2
    assert [Path("jobs", name, "student").is_dir() for name in "012"] == [True, False, True]
    assert not Path("jobs/1/manifest.json").exists()
    assert "Job 1 (optim.optimizer.lr=-1.0) failed" in outcome.err
    assert "Traceback" not in outcome.err
    assert "1 refused of 3 jobs" in outcome.err


@pytest.mark.slow
def test_a_job_that_crashes_stops_no_other(potstill, monkeypatch):
    from potstill.commands import train

    fit = train.fit

    def crash_once(trainer, *rest) -> dict[str, float]:
        if Path(trainer.checkpoint_callback.dirpath).parent.name == "1":
            raise RuntimeError("out of luck")
        return fit(trainer, *rest)

    monkeypatch.setattr(train, "fit", crash_once)
    outcome = potstill(*MULTIRUN, "seed=0,1,2")
    assert outcome.code == 1
    statuses = [json.loads(Path("jobs", name, "manifest.json").read_text())["status"] for name in "012"]
    assert statuses == ["finished", "failed", "finished"]
    assert "RuntimeError: out of luck" in outcome.err
