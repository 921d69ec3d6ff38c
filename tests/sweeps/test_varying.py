from __future__ import annotations

from potstill.sweeps.results import Result
from potstill.sweeps.varying import ABSENT, short_names, varying


def run(overrides: list[str], choices: dict[str, str] | None = None, **config: object) -> Result:
    keys = {key.replace("__", "."): value for key, value in config.items()}
    return Result("x", "x", "finished", overrides=overrides, choices=choices or {}, config={"seed": 0, **keys})


def test_keys_that_a_group_brings_along_are_implied_and_swept_ones_are_not() -> None:
    runs = [
        run(["loss=kd", "optim.lr=1"], {"loss": "kd"}, loss__kd__weight=1.0, optim__lr=1),
        run(["loss=kd", "optim.lr=2"], {"loss": "kd"}, loss__kd__weight=1.0, optim__lr=2),
        run(["loss=ce", "optim.lr=1"], {"loss": "ce"}, loss__ce__weight=1.0, optim__lr=1),
    ]
    found = varying(runs)
    assert found.shown == ["loss", "optim.lr"]
    assert sorted(found.implied) == ["loss.ce.weight", "loss.kd.weight"]
    assert found.values(runs[2]) == {"loss": "ce", "optim.lr": 1}


def test_a_key_that_differs_within_a_choice_is_shown_though_nobody_typed_it() -> None:
    runs = [run(["loss=kd"], {"loss": "kd"}, width=number, kind="kd") for number in (1, 2)]
    runs.append(run(["loss=ce"], {"loss": "ce"}, width=1, kind="ce"))
    found = varying(runs)
    assert (found.shown, found.implied) == (["loss", "width"], ["kind"])


def test_a_choice_that_changes_nothing_is_no_difference() -> None:
    assert varying([run([], {"hardware": "cpu"}, width=1), run([], {}, width=1.0)]).shown == []


def test_true_is_not_one_and_an_absent_key_is_not_null() -> None:
    found = varying([run([], flag=True, gone=None), run([], flag=1)])
    assert found.shown == ["flag", "gone"]
    assert found.values(run([])) == {"flag": ABSENT, "gone": ABSENT}


def test_the_seed_is_no_column() -> None:
    assert (
        varying([run(["seed=0"]), Result("y", "y", "finished", overrides=["seed=1"], config={"seed": 1})]).shown == []
    )


def test_short_names_stay_apart() -> None:
    names = short_names(["loss.term.kd.weight", "loss.term.ce.weight", "optim.optimizer.lr", "loss"])
    assert list(names.values()) == ["kd.weight", "ce.weight", "lr", "loss"]
    assert short_names(["weight", "a.weight"]) == {"weight": "weight", "a.weight": "a.weight"}
