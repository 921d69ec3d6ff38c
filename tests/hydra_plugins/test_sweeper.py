"""The sweeper in this process, under Hydra's own launcher."""

from __future__ import annotations

import math

import optuna
import pytest
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from optuna.trial import TrialState

from hydra_plugins.potstill_optuna._errors import SweepError
from hydra_plugins.potstill_optuna._study import open_storage
from tests.tiers import one_and_others

pytestmark = pytest.mark.slow

X = "x=interval(0,1)"


def square(cfg):
    return (cfg.x - 0.3) ** 2


def this_trial():
    hydra = HydraConfig.get()
    study = optuna.load_study(study_name=hydra.sweeper.study_name, storage=open_storage(hydra.sweeper.storage))
    return optuna.Trial(study, study.trials[int(hydra.sweep.subdir)]._trial_id)


def states(study):
    return [trial.state.name for trial in study.trials]


def test_every_trial_gets_its_values_and_a_directory_with_its_number(sweep, tmp_path):
    seen = {}

    def task(cfg):
        hydra = HydraConfig.get()
        seen[int(hydra.sweep.subdir)] = (cfg.x, hydra.runtime.output_dir)
        return cfg.x

    study = sweep(task, X)
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    for trial in study.trials:
        assert seen[trial.number] == (trial.params["x"], str(tmp_path / "sweep" / str(trial.number)))
        assert trial.values == [trial.params["x"]]


def test_a_choice_opens_its_branch_only(sweep):
    params = "  loss: kd,dkd\n  loss=dkd:\n    loss.weight: interval(0,1)\n  loss=kd:\n    loss.temperature: 1,2,4\n"
    seen = []
    study = sweep(lambda cfg: seen.append(dict(cfg.loss)) or 0.0, params=params, num_trials=8)
    assert {tuple(sorted(trial.params)) for trial in study.trials} == {
        ("loss", "loss.weight"),
        ("loss", "loss.temperature"),
    }
    assert {tuple(loss) for loss in seen} == {("weight",), ("temperature",)}


def test_the_same_seed_is_the_same_study(sweep):
    first, again, other = (
        [trial.params for trial in sweep(square, X, f"hydra.sweeper.seed={seed}", directory=name).trials]
        for name, seed in (("one", 1), ("two", 1), ("three", 2))
    )
    assert first == again != other


def test_the_directory_of_a_sweep_may_have_any_name(sweep):
    study = sweep(square, X, directory="it's a=b, c", num_trials=1)
    assert states(study) == ["COMPLETE"]


@pytest.mark.parametrize("sampler", one_and_others("tpe", "gp", "cmaes", "random", "nsgaii"))
def test_a_study_that_goes_on_is_the_study_that_never_stopped(sweep, sampler):
    options = (X, "n=int(interval(1,9))", f"hydra.sweeper.sampler={sampler}")
    if sampler in ("tpe", "gp", "cmaes"):
        options = (*options, "+hydra.sweeper.sampler_options.n_startup_trials=2")
    whole = sweep(square, *options, directory="whole", num_trials=6)
    sweep(square, *options, directory="parts", num_trials=3)
    parts = sweep(square, *options, directory="parts", num_trials=6)
    assert [trial.params for trial in parts.trials] == [trial.params for trial in whole.trials]
    assert len({trial.params["x"] for trial in parts.trials}) == 6


def test_an_interrupted_trial_goes_on_under_its_number_with_its_values(sweep):
    seen = []

    def interrupted_once(cfg):
        seen.append((HydraConfig.get().sweep.subdir, cfg.x))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return square(cfg)

    with pytest.raises(KeyboardInterrupt):
        sweep(interrupted_once, X)
    study = sweep(interrupted_once, X)
    assert [number for number, _ in seen] == ["0", "1", "1", "2", "3"]
    assert seen[1] == seen[2]
    assert states(study) == ["COMPLETE"] * 4
    assert [trial.params for trial in study.trials] == [
        trial.params for trial in sweep(square, X, directory="b").trials
    ]


def test_a_trial_that_got_half_of_its_values_gets_the_rest(sweep, tmp_path):
    def leave_it(_cfg):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(leave_it, X, "n=range(1,99)")
    log = tmp_path / "sweep" / "study.journal"
    lines = log.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"param_name":"n"' not in line]
    assert len(kept) == len(lines) - 1
    log.write_text("".join(kept))
    study = sweep(square, X, "n=range(1,99)")
    assert states(study) == ["COMPLETE"] * 4
    assert [set(trial.params) for trial in study.trials] == [{"x", "n"}] * 4
    assert f'"param_value_internal":{study.trials[0].params["x"]}' in kept[-1]


def test_a_trial_that_another_process_has_is_left_to_it(sweep, tmp_path, caplog):
    def leave_it(_cfg):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(leave_it, X)
    with FileLock(tmp_path / "sweep" / "trials" / "0.lock"), FileLock(tmp_path / "sweep" / "0" / ".lock"):
        study = sweep(square, X)
    assert "still runs" not in caplog.text
    assert states(study) == ["RUNNING", *["COMPLETE"] * 3]
    assert states(sweep(square, X)) == ["COMPLETE"] * 4


def test_a_trial_whose_job_outlived_its_sweeper_is_left_to_it(sweep, tmp_path, caplog):
    def leave_it(_cfg):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(leave_it, X)
    with FileLock(tmp_path / "sweep" / "0" / ".lock"):
        assert states(sweep(square, X)) == ["RUNNING", *["COMPLETE"] * 3]
    assert "Trial 0: its job still runs" in caplog.text


def test_a_finished_study_runs_nothing_and_a_larger_one_only_what_is_missing(sweep):
    calls = []

    def count(cfg):
        calls.append(cfg.x)
        return cfg.x

    sweep(count, X)
    sweep(count, X)
    assert len(calls) == 4
    study = sweep(count, X, num_trials=6)
    assert len(calls) == len(study.trials) == 6


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (None, "which is no number"),
        ("much", "which is no number"),
        ((1.0, 2.0), "returned 2 values, and hydra.sweeper.directions has 1"),
        (math.nan, "which is not finite"),
        (math.inf, "which is not finite"),
    ],
)
def test_a_value_that_is_none_fails_its_trial_and_no_other(sweep, caplog, returned, text):
    values = iter([returned, 1.0])
    study = sweep(lambda _: next(values), X, num_trials=2)
    assert states(study) == ["FAIL", "COMPLETE"]
    assert text in caplog.text


def test_a_job_that_raises_fails_its_trial_and_no_other(sweep, caplog):
    def task(cfg):
        if HydraConfig.get().sweep.subdir == "1":
            raise RuntimeError("out of luck")
        return cfg.x

    study = sweep(task, X, "hydra.sweeper.num_parallel=3")
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert "Trial 1: failed: RuntimeError: out of luck" in caplog.text


def test_a_trial_whose_config_does_not_compose_fails_and_no_other(sweep):
    """Each choice composes; two of them together do not."""
    params = "  loss: kd,dkd\n  n: 1,2\n  n=2:\n    loss.temperature: 1,2\n"
    study = sweep(square, params=params, num_trials=8)
    for trial in study.trials:
        impossible = trial.params["loss"] == "dkd" and trial.params["n"] == 2
        assert (trial.state == TrialState.FAIL) == impossible
    assert {"FAIL", "COMPLETE"} == set(states(study))


def test_a_study_in_which_all_fails_stops_before_it_is_used_up(sweep, caplog):
    def fail(_cfg):
        raise RuntimeError("no such teacher")

    study = sweep(fail, X, "hydra.sweeper.max_failed_in_a_row=3", num_trials=20)
    assert states(study) == ["FAIL"] * 3
    assert "3 trials in a row failed" in caplog.text


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruned_trial_is_told_as_pruned_with_its_last_value(sweep, pruner):
    def task(cfg):
        trial = this_trial()
        for step in range(5):
            trial.report(cfg.x + step, step)
            if trial.number == 1 and step == 2:
                trial.set_user_attr("status", "pruned")
                break
        return cfg.x + step

    study = sweep(task, X, f"hydra.sweeper.pruner={pruner}")
    assert states(study) == ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"]
    assert study.trials[1].value == study.trials[1].params["x"] + 2


@pytest.mark.parametrize("sampler", one_and_others("tpe", "gp", "nsgaii", "random"))
def test_a_constraint_decides_which_trial_is_the_best(sweep, caplog, sampler):
    def task(cfg):
        this_trial().set_user_attr("cost/ms", float(cfg.x) * 10)
        return -cfg.x

    constraint = "hydra.sweeper.constraints=['cost/ms <= 5.0','cost/ms >= 1']"
    study = sweep(task, X, "n=int(interval(1,9))", constraint, f"hydra.sweeper.sampler={sampler}", num_trials=14)
    for trial in study.trials:
        cost = trial.params["x"] * 10
        assert trial.constraints == pytest.approx({"cost/ms <= 5.0": cost - 5, "cost/ms >= 1": 1 - cost})
    kept = [trial for trial in study.trials if 0.1 <= trial.params["x"] <= 0.5]
    best = max(kept, key=lambda trial: trial.params["x"])
    assert f"Best: trial {best.number}," in caplog.text


def test_a_trial_without_the_metric_of_a_constraint_has_broken_it(sweep, caplog):
    study = sweep(square, X, "hydra.sweeper.constraints=['cost/ms <= 5.0']", num_trials=2)
    assert [trial.constraints for trial in study.trials] == [{"cost/ms <= 5.0": 5.0}] * 2
    assert "No trial is complete and keeps the constraints" in caplog.text


def test_several_directions_end_in_a_pareto_front(sweep, caplog):
    def task(cfg):
        return [cfg.x, cfg.n - cfg.x]

    options = (X, "n=1,2", "hydra.sweeper.directions=[maximize,minimize]", "hydra.sweeper.sampler=nsgaii")
    study = sweep(task, *options, num_trials=6)
    assert all(f"On the Pareto front: trial {trial.number}," in caplog.text for trial in study.best_trials)
    assert caplog.text.count("On the Pareto front") == len(study.best_trials) < 6


def test_points_to_begin_with_come_first_and_once(sweep):
    warm = "hydra.sweeper.warm_start=[{x:0.25},{x:0.75,loss:dkd},{x:0.25}]"
    study = sweep(square, X, "loss=kd,dkd", warm, num_trials=3)
    assert [trial.params["x"] for trial in study.trials][:2] == [0.25, 0.75]
    assert study.trials[1].params["loss"] == "dkd"
    study = sweep(square, X, "loss=kd,dkd", warm.replace("]", ",{x:0.5}]"), num_trials=5)
    assert [trial.params["x"] for trial in study.trials].count(0.25) == 1
    assert study.trials[3].params["x"] == 0.5
    assert states(study) == ["COMPLETE"] * 5


def test_a_grid_ends_with_its_last_point(sweep):
    options = ("x=0.1,0.2,0.3", "n=range(1,3)", "hydra.sweeper.sampler=grid")
    sweep(square, *options, num_trials=2)
    study = sweep(square, *options, num_trials=None)
    points = [(trial.params["x"], trial.params["n"]) for trial in study.trials]
    assert points == [(0.1, 1), (0.1, 2), (0.2, 1), (0.2, 2), (0.3, 1), (0.3, 2)]
    assert len(sweep(square, *options, num_trials=50).trials) == 6


def test_a_study_lives_in_a_database_as_well(sweep, tmp_path):
    options = (X, "hydra.sweeper.storage=sqlite:///study.db", "hydra.sweeper.study_name=mine")
    seen = []

    def task(cfg):
        seen.append(HydraConfig.get().sweeper.storage)
        this_trial().set_user_attr("cost/ms", 1.0)
        return cfg.x

    study = sweep(task, *options)
    assert states(study) == ["COMPLETE"] * 4
    assert seen == [f"sqlite:///{tmp_path}/study.db"] * 4
    assert study.trials[0].user_attrs["cost/ms"] == 1.0
    assert states(sweep(task, *options, num_trials=5)) == ["COMPLETE"] * 5


REFUSED = [
    (["hydra.sweeper.num_trials=null"], "num_trials", "leaves open when the study ends"),
    (["hydra.sweeper.num_trials=0"], "num_trials", "at least 1"),
    (["hydra.sweeper.num_parallel=0"], "num_parallel", "at least 1"),
    (["hydra.sweeper.sampler=tep"], "sampler", "Nearest: 'tpe'"),
    (["hydra.sweeper.pruner=medan"], "pruner", "Nearest: 'median'"),
    (["hydra.sweeper.directions=[minimise]"], "directions", "Nearest: 'minimize'"),
    (["hydra.sweeper.directions=[]"], "directions", "is empty"),
    (["+hydra.sweeper.sampler_options.n_startup=2"], "sampler_options.n_startup", "Nearest: 'n_startup_trials'"),
    (["+hydra.sweeper.sampler_options.seed=2"], "sampler_options.seed", "It is hydra.sweeper.seed"),
    (["hydra.sweeper.pruner=median", "+hydra.sweeper.pruner_options.n_min_trials=0"], "pruner_options", "is refused"),
    (
        ["hydra.sweeper.directions=[minimize,minimize]", "hydra.sweeper.pruner=median"],
        "pruner",
        "2 values while it runs",
    ),
    (["hydra.sweeper.directions=[minimize,minimize]", "hydra.sweeper.sampler=cmaes"], "sampler", "one direction only"),
    (
        ["hydra.sweeper.constraints=['c <= 1']", "hydra.sweeper.sampler=cmaes"],
        "sampler",
        "knows nothing of constraints",
    ),
    (["hydra.sweeper.constraints=['cost < 2']"], "constraints", "is no constraint"),
    (["hydra.sweeper.sampler=grid"], "x", "a grid has to end"),
    (["hydra.sweeper.warm_start=[{z:1}]"], "warm_start.0.z", "is no parameter of the space"),
    (["hydra.sweeper.warm_start=[{x:7}]"], "warm_start.0.x", "lies outside"),
    (["hydra.sweeper.storage=study.db"], "storage", "neither a path that ends in .journal"),
    (["'hydra.sweeper.storage=sqlite:///:memory:'"], "storage", "is in memory"),
    (["'hydra.sweeper.storage=nosuch://me:pass1234@host/db'"], "storage", "cannot be opened"),
]


@pytest.mark.parametrize(("options", "key", "text"), REFUSED, ids=[" ".join(options) for options, _, _ in REFUSED])
def test_bad_input_is_refused_before_anything_is_written(sweep, tmp_path, options, key, text):
    with pytest.raises(SweepError) as refusal:
        sweep(square, X, *(option.strip("'") for option in options))
    assert refusal.value.key.endswith(key)
    assert text in str(refusal.value)
    assert "pass1234" not in str(refusal.value)
    assert not (tmp_path / "sweep" / "0").exists()


def test_a_key_that_is_not_there_is_refused_before_the_study_begins(sweep, tmp_path):
    params = "  loss: kd,dkd\n  loss=dkd:\n    loss.wieght: interval(0,1)\n"
    with pytest.raises(HydraException, match=r"loss\.wieght"):
        sweep(square, params=params)
    assert not (tmp_path / "sweep" / "study.journal").exists()


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_one_of_several_ranks_is_refused(sweep, monkeypatch, name):
    monkeypatch.setenv(name, "2")
    with pytest.raises(SweepError, match="hardware=ddp"):
        sweep(square, X)


@pytest.mark.parametrize(
    ("changed", "key", "text"),
    [
        (["x=interval(0,2)"], "params", "x was float(low=0.0, high=1.0)"),
        ([X, "n=1,2"], "params", "n was not there"),
        ([X, "hydra.sweeper.directions=[maximize]"], "directions", "then ['minimize']"),
        ([X, "hydra.sweeper.sampler=random"], "sampler", "then 'tpe'"),
        ([X, "hydra.sweeper.pruner=median"], "pruner", "then 'none'"),
        ([X, "hydra.sweeper.constraints=['a <= 1']"], "constraints", "then []"),
    ],
)
def test_a_study_does_not_go_on_as_another(sweep, changed, key, text):
    sweep(square, X, num_trials=1)
    with pytest.raises(SweepError) as refusal:
        sweep(square, *changed, num_trials=2)
    assert refusal.value.key == f"hydra.sweeper.{key}"
    assert text in str(refusal.value)


def test_a_study_that_something_else_made_is_left_alone(sweep, tmp_path):
    (tmp_path / "sweep").mkdir()
    other = optuna.create_study(study_name="sweep", storage=open_storage(str(tmp_path / "sweep" / "study.journal")))
    other.add_trial(optuna.create_trial(value=1.0))
    with pytest.raises(SweepError, match="something else made"):
        sweep(square, X)


def test_two_directories_do_not_share_a_study(sweep):
    sweep(square, X, "hydra.sweeper.storage=both.journal", "hydra.sweeper.study_name=s", directory="one", num_trials=1)
    with pytest.raises(SweepError, match="has its trials in another directory"):
        sweep(square, X, "hydra.sweeper.storage=both.journal", "hydra.sweeper.study_name=s", directory="two")
