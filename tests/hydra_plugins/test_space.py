from __future__ import annotations

import optuna
import pytest

from hydra_plugins.potstill_optuna._errors import SweepError


def bounds(space, text):
    [param] = space({"x": text}).everything()
    return param.kind, param.bounds.get("low"), param.bounds.get("high"), param.bounds.get("step"), param.bounds["log"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("interval(0,1)", ("float", 0.0, 1.0, None, False)),
        ("interval(1e-4,1e-1)", ("float", 1e-4, 1e-1, None, False)),
        ("tag(log,interval(1e-4,1e-1))", ("float", 1e-4, 1e-1, None, True)),
        ("tag(log, interval(1.0e-4, 1.0e-1))", ("float", 1e-4, 1e-1, None, True)),
        ("int(interval(1,8))", ("int", 1, 8, 1, False)),
        ("tag(log,int(interval(1,64)))", ("int", 1, 64, 1, True)),
        ("range(1,10)", ("int", 1, 9, 1, False)),  # as Hydra has it: without the end
        ("range(1,10,3)", ("int", 1, 7, 3, False)),
        ("range(9,0,-4)", ("int", 1, 9, 4, False)),
        ("range(5)", ("int", 0, 4, 1, False)),
        ("tag(log,range(1,9))", ("int", 1, 8, 1, True)),
        ("range(0.1,0.5,0.1)", ("float", 0.1, 0.4, 0.1, False)),
        ("float(range(1,4))", ("float", 1.0, 3.0, 1.0, False)),
    ],
)
def test_numbers_are_searched_within_the_bounds_that_hydra_means(space, text, expected):
    assert bounds(space, text) == expected


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,4", [1, 2, 4]),
        ("choice(adam,sgd)", ["adam", "sgd"]),
        ("0.5,null,true", [0.5, None, True]),
        ("'a b','c,d'", ["a b", "c,d"]),
        ("[8,16],[16,32]", ["[8,16]", "[16,32]"]),  # a study keeps plain values only
        ("choice({a:1},{a:2})", ["{a:1}", "{a:2}"]),
    ],
)
def test_choices_keep_their_type(space, text, values):
    [param] = space({"x": text}).everything()
    assert list(param.texts) == values


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("'a b','c'", ["x='a b'", "x='c'"]),
        ("[8,16],[16,32]", ["x=[8,16]", "x=[16,32]"]),
        ("null,true", ["x=null", "x=True"]),
        ("1.0e-5,1", ["x=1e-05", "x=1"]),
        ("range(0.1,0.5,0.1)", ["x=0.1", "x=0.2", "x=0.3", "x=0.4"]),
    ],
)
def test_a_value_reaches_the_job_as_it_was_written(space, text, written):
    found = space({"x": text})
    assert [
        line for point in found.points() for line in found.overrides(lambda p, point=point: point[p.key])
    ] == written


def test_the_command_line_goes_before_the_file(space):
    given = {"x": "interval(0,1)", "y": "1,2", "loss": "kd,dkd", "loss=dkd": {"w": "interval(0,1)"}}
    found = space(given, "x=interval(0,5)", "y=3", "+z=a,b", "w=0.5")
    assert found.describe() == {
        "x": "float(low=0.0, high=5.0)",
        "loss": "choice(kd, dkd)",
        "z": "choice(a, b)",
        "loss=dkd": {"w": "w=0.5"},
    }
    values = {"x": 1.0, "loss": "dkd", "z": "a"}
    assert sorted(found.overrides(lambda param: values[param.key])) == ["+z=a", "loss=dkd", "w=0.5", "x=1.0", "y=3"]


NESTED = {
    "loss": "kd,dkd",
    "loss=dkd": {
        "weight": "interval(0,1)",
        "optim": "adam,sgd",
        "optim=sgd": {"momentum": "0.0,0.9", "nesterov": True},
    },
    "loss=kd": {"temperature": "1,2,4"},
}


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({"loss": "kd", "temperature": 2}, ["loss=kd", "temperature=2"]),
        ({"loss": "dkd", "weight": 0.5, "optim": "adam"}, ["loss=dkd", "weight=0.5", "optim=adam"]),
        (
            {"loss": "dkd", "weight": 0.5, "optim": "sgd", "momentum": 0.9},
            ["loss=dkd", "weight=0.5", "optim=sgd", "nesterov=true", "momentum=0.9"],
        ),
    ],
)
def test_what_depends_on_a_choice_is_searched_only_where_it_was_taken(space, values, lines):
    assert list(space(NESTED).overrides(lambda param: values[param.key])) == lines


def test_a_choice_that_is_fixed_opens_its_branch(space):
    found = space(NESTED, "loss=kd")
    assert list(found.overrides(lambda _: 4)) == ["loss=kd", "temperature=4"]


def test_a_probe_takes_every_choice(space):
    lines = {line for probe in space(NESTED).probes() for line in probe}
    assert {"loss=kd", "loss=dkd", "optim=sgd", "momentum=0.9", "nesterov=true", "temperature=4"} <= lines


def test_the_grid_has_every_point_of_every_branch_once(space):
    given = {**NESTED, "loss=dkd": {**NESTED["loss=dkd"], "weight": "0.5,1.0"}}
    points = list(space(given).points())
    assert len(points) == 3 + 2 * (1 + 2)
    assert len({tuple(sorted(point.items())) for point in points}) == len(points)


def test_a_trial_gets_what_optuna_suggests(space):
    found = space({**NESTED, "x": "tag(log,interval(1e-3,1))", "n": "range(0,9,2)", "f": "range(0.1,0.5,0.1)"})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        lines = dict(line.split("=") for line in found.overrides(lambda param, trial=trial: param.suggest(trial)))
        assert 1e-3 <= float(lines["x"]) <= 1
        assert lines["n"] in ("0", "2", "4", "6", "8")
        assert lines["f"] in ("0.1", "0.2", "0.3", "0.4")
        assert ("temperature" in lines) == (lines["loss"] == "kd")
        assert set(trial.params) <= {"loss", "weight", "optim", "momentum", "temperature", "x", "n", "f"}


REFUSED = [
    ({"x": "shuffle(1,2,3)"}, "x", "the sampler draws in its own order"),
    ({"x": "tag(lgo,interval(1,2))"}, "x", "There is one tag: log"),
    ({"x": "tag(log,choice(1,2))"}, "x", "has no scale"),
    ({"x": "tag(log,interval(0,1))"}, "x", "no logarithm"),
    ({"x": "tag(log,range(1,9,2))"}, "x", "a logarithmic scale and a step"),
    ({"x": "interval(2,1)"}, "x", "is empty"),
    ({"x": "range(5,1)"}, "x", "is empty"),
    ({"x": "choice(1,1)"}, "x", "holds a value twice"),
    ({"x": "choice(1,true)"}, "x", "holds a value twice"),
    ({"x": "interval(1,"}, "x", "cannot be read"),
    ({"x": [1, 2]}, "x", "Write choice(1,2)"),
    ({"optim": {"lr": "1,2"}}, "optim", "Write nested keys with dots"),
    ({"x": 3}, "hydra.sweeper.params", "nothing to search"),
    ({}, "hydra.sweeper.params", "nothing to search"),
    ({"loss": "kd,dkd", "loss=dkdd": {"w": "1,2"}}, "loss=dkdd", "Nearest: 'dkd'"),
    ({"loss": "kd,dkd", "los=dkd": {"w": "1,2"}}, "los=dkd", "Nearest: 'loss'"),
    ({"loss": "kd,dkd", "w": "1,2", "loss=dkd": {"w": "1,2"}}, "w", "in a branch and above it"),
    ({"loss": "kd,dkd", "loss=dkd": {"w": "1,2"}, "loss=kd": {"w": "1,3"}}, "w", "one space a name"),
]


@pytest.mark.parametrize(("params", "key", "text"), REFUSED, ids=[str(params) for params, _, _ in REFUSED])
def test_a_space_that_cannot_be_searched_is_refused(space, params, key, text):
    with pytest.raises(SweepError) as refusal:
        space(params)
    assert key in refusal.value.key
    assert text in str(refusal.value)


def test_a_grid_over_an_interval_is_refused(space):
    with pytest.raises(SweepError, match="a grid has to end"):
        list(space({"x": "interval(0,1)"}).points())


def test_integers_of_an_interval_make_a_grid(space):
    assert [point["x"] for point in space({"x": "int(interval(1,4))"}).points()] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "value", "accepted"),
    [("interval(0,1)", 1, 1.0), ("range(1,9,2)", 5, 5), ("a,null", None, None), ("1,2", "2", 2)],
)
def test_a_point_to_begin_with_is_kept_as_the_study_keeps_values(space, text, value, accepted):
    [param] = space({"x": text}).everything()
    assert param.accept(value, "x") == accepted


@pytest.mark.parametrize(
    ("text", "value"), [("interval(0,1)", 2), ("range(1,9,2)", 4), ("a,b", "c"), ("interval(0,1)", "z")]
)
def test_a_point_outside_of_the_space_is_refused(space, text, value):
    [param] = space({"x": text}).everything()
    with pytest.raises(SweepError):
        param.accept(value, "x")
