"""Studies through the command line: pruned, constrained, killed and gone on with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from hydra_plugins.potstill_optuna import load_study
from tests.processes import command_line, started

pytestmark = pytest.mark.slow

STUDY = ("train", "-m", "hydra/sweeper=optuna", "run.dir=jobs", "logger=none", "optim.max_epochs=null")
RATES = "optim.optimizer.lr=tag(log,interval(1e-7,1e-1))"
# The first trial learns, the second does not.
BEGIN_WITH = "hydra.sweeper.warm_start=[{optim.optimizer.lr:0.02},{optim.optimizer.lr:1e-7}]"


def study() -> optuna.Study:
    return load_study(str(Path("jobs/study.journal").absolute()), "jobs")


def said(number: int, file: str = "job.json") -> dict[str, Any]:
    return json.loads(Path(f"jobs/{number}/{file}").read_text())


def test_a_trial_that_falls_behind_ends_early_and_is_recorded_as_pruned(potstill):
    pruner = ("hydra.sweeper.pruner=median", "+hydra.sweeper.pruner_options.n_startup_trials=1")
    steps = ("optim.max_steps=30", "validate_every=10", "callbacks=none", "hydra.sweeper.num_trials=2")
    limit = "hydra.sweeper.constraints=['cost/parameters <= 6000']"
    outcome = potstill(*STUDY, *steps, *pruner, limit, RATES, BEGIN_WITH)
    assert outcome.code == 0, outcome.err
    first, second = study().trials
    assert [trial.state.name for trial in (first, second)] == ["COMPLETE", "PRUNED"]
    assert [said(number)["status"] for number in (0, 1)] == ["finished", "pruned"]
    assert said(1, "manifest.json")["status"] == "pruned"
    assert list(first.intermediate_values) == [10, 20, 30]
    last = max(second.intermediate_values)
    assert last < 30
    assert said(1)["values"]["val/loss"] == second.intermediate_values[last] == second.value
    assert said(0)["values"]["val/loss"] == first.value
    assert first.constraints == {"cost/parameters <= 6000": 5442 - 6000}
    assert {"val/accuracy", "train/seconds", "cost/latency_ms_p50", "status"} <= first.user_attrs.keys()


@pytest.mark.thorough
def test_a_killed_study_goes_on_with_the_trial_it_was_killed_in(potstill):
    steps = ("optim.max_steps=60", "validate_every=5", "hydra.sweeper.num_trials=3")
    arguments = [*STUDY, *steps, "hydra.sweeper.pruner=median", RATES, BEGIN_WITH]
    with started(command_line, *arguments) as process:
        while not Path("jobs/1/checkpoints/last.ckpt").exists():
            assert process.is_alive()
            time.sleep(0.01)
        process.kill()
        process.join()
    [before] = [trial.params for trial in study().trials if trial.state.name == "RUNNING"]

    outcome = potstill("sweep", "resume", "jobs")
    assert outcome.code == 0, outcome.err
    trials = study().trials
    assert [(trial.number, trial.state.name) for trial in trials] == [(number, "COMPLETE") for number in range(3)]
    assert trials[1].params == before
    assert said(1, "manifest.json")["resumes"][0]["from_step"] >= 5
    assert [list(trial.intermediate_values) for trial in trials] == [list(range(5, 61, 5))] * 3
    assert potstill("sweep", "resume", "jobs").code == 0
    assert len(study().trials) == 3


def test_several_metrics_end_in_a_pareto_front(potstill):
    options = ("returns=[val/accuracy,cost/parameters]", "hydra.sweeper.directions=[maximize,minimize]")
    sizes = "student.config.hidden_sizes=[4,8],[8,16]"
    steps = ("debug=one_batch", "hydra.sweeper.sampler=grid")
    outcome = potstill(*STUDY, *steps, *options, sizes)
    assert outcome.code == 0, outcome.err
    assert [trial.values[1] for trial in study().trials] == [said(n)["values"]["cost/parameters"] for n in (0, 1)]
    assert "On the Pareto front: trial 0" in outcome.out


def test_a_direction_that_searches_for_the_worst_is_refused(potstill):
    steps = ("debug=one_batch", "hydra.sweeper.num_trials=1", "hydra.sweeper.directions=[maximize]")
    outcome = potstill(*STUDY, *steps, RATES)
    assert outcome.code == 2
    assert "would search for the worst val/loss" in outcome.words
    assert "Set hydra.sweeper.directions=[minimize]" in outcome.words
