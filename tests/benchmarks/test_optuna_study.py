from __future__ import annotations

import datetime
import json
from argparse import Namespace

import optuna
import pytest

from benchmarks import optuna_study
from potstill.config.combinations import combinations

NOW = datetime.datetime(2026, 1, 1)


def trial(number, state, value, status, last_step):
    frozen = optuna.create_trial(
        state=state,
        value=value,
        params={"x": float(number)},
        distributions={"x": optuna.distributions.FloatDistribution(0, 9)},
        user_attrs={"status": status, "train/seconds": 3.2},
        intermediate_values={last_step: 1.0},
    )
    frozen.datetime_start, frozen.datetime_complete = NOW, NOW + datetime.timedelta(seconds=4)
    return frozen


@pytest.fixture
def study():
    states = optuna.trial.TrialState
    made = optuna.create_study()
    made.add_trial(trial(0, states.COMPLETE, 0.5, "finished", 160))
    made.add_trial(trial(1, states.PRUNED, 0.4, "pruned", 64))
    made.add_trial(trial(2, states.COMPLETE, 0.3, "finished", 160))
    made.add_trial(trial(3, states.COMPLETE, 100.0, "diverged", 32))
    return made


def test_what_pruning_saved_is_steps_not_taken_times_a_steps_cost(study):
    facts = optuna_study.facts_of(study)
    assert (facts["num_complete"], facts["num_pruned"], facts["num_failed"]) == (3, 1, 0)
    assert facts["saved_steps"] == 96
    assert facts["saved_seconds"] == pytest.approx(96 * 3.2 / 160)
    assert facts["seconds"] == 16


def test_a_pruned_trial_is_never_the_best(study):
    facts = optuna_study.facts_of(study)
    assert (facts["best"], facts["best_params"]) == (0.3, {"x": 2.0})
    assert [optuna_study.best_after(facts["values"], count) for count in (1, 2, 3, 4)] == [0.5, 0.5, 0.3, 0.3]


def test_the_difference_is_paired_by_seed(study, tmp_path):
    results = optuna_study.read_results(tmp_path / "none.json", 4)
    facts = optuna_study.facts_of(study)
    for seed, better in ((0, 0.1), (1, 0.3)):
        other = {**facts, "best": 0.3 + better, "values": [value and value + better for value in facts["values"]]}
        results["repeats"].append({"seed": seed, "tpe": facts, "random": other})
    lines = list(optuna_study.markdown(results))
    assert "| 0 | 0.3000 | 0.4000 | -0.1000 | 1 | 96 (15%) | 2 s |" in lines
    assert lines[-1].startswith("| 4 trials | -0.2000 [")


def test_a_repeat_that_is_there_is_not_run_again(tmp_path, monkeypatch, study, capsys):
    calls = []
    monkeypatch.setattr(optuna_study, "run_study", lambda method, seed, _: calls.append((method, seed)) or study)
    arguments = ["--teacher", "t", "--trials", "4", "--out", str(tmp_path / "out.json")]
    optuna_study.main([*arguments, "--repeats", "1"])
    optuna_study.main([*arguments, "--repeats", "2"])
    assert calls == [("tpe", 0), ("random", 0), ("random", 1), ("tpe", 1)]
    assert [repeat["seed"] for repeat in json.loads((tmp_path / "out.json").read_text())["repeats"]] == [0, 1]
    assert capsys.readouterr().out.count("\n| 1 | ") == 1
    with pytest.raises(SystemExit, match="is of other trials"):
        optuna_study.main([*arguments, "--trials", "9"])


@pytest.mark.parametrize("method", optuna_study.METHODS)
def test_the_command_of_a_study_composes(method):
    overrides = optuna_study.command(method, 3, 40, "teacher")
    plan = combinations("train", [*overrides, "run.dir=here"])
    assert plan.sweeper == "optuna"
    assert plan.config["seed"] == 3
    assert not {"last", "throughput", "progress"} & plan.config["callbacks"].keys(), "what a trial has no use for"
    assert len(plan.keys) == len(optuna_study.SPACE)


def test_a_study_that_was_interrupted_goes_on(tmp_path, monkeypatch, study):
    commands = []
    monkeypatch.setattr(optuna_study.subprocess, "run", lambda command, **_: commands.append(command[3:]))
    monkeypatch.setattr(optuna_study, "load_study", lambda *_: study)
    options = Namespace(runs=tmp_path, trials=4, teacher="teacher")
    optuna_study.run_study("tpe", 0, options)
    (tmp_path / "tpe_0").mkdir()
    (tmp_path / "tpe_0" / "sweep.json").write_text("{}")
    optuna_study.run_study("tpe", 0, options)
    assert commands[0][:2] == ["train", "-m"]
    assert commands[1] == ["sweep", "resume", str(tmp_path / "tpe_0")]
