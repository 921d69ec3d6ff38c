"""What a multirun would run, worked out before it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.config.combinations import combinations, values_of
from potstill.errors import UserError


def test_jobs_hold_only_what_varies() -> None:
    plan = combinations("train", ["experiment=digits", "teacher.path=there", "seed=0,1", "loss.term.kd.weight=1,2"])
    assert plan.keys == ["seed", "loss.term.kd.weight"]
    assert plan.jobs == [[f"seed={seed}", f"loss.term.kd.weight={weight}"] for seed in (0, 1) for weight in (1, 2)]
    assert (plan.sweeper, plan.config["seed"], plan.config["loss"]["term"]["kd"]["weight"]) == ("grid", 0, 1)


def test_a_key_given_on_the_command_line_is_swept_no_more() -> None:
    params = "+hydra.sweeper.params={seed: '0,1,2', log_every: '1,2'}"
    assert combinations("train", [params]).keys == ["seed", "log_every"]
    plan = combinations("train", [params, "seed=7"])
    assert plan.jobs == [["log_every=1"], ["log_every=2"]]
    assert plan.config["seed"] == 7
    assert combinations("train", [params, "seed=7,8"]).jobs == [
        [f"seed={seed}", f"log_every={every}"] for seed in (7, 8) for every in (1, 2)
    ]


def test_groups_are_swept_by_option() -> None:
    assert combinations("train", ["loss=glob(kd*)", "student=resnet_digits"]).jobs == [
        ["loss=kd"],
        ["loss=kd_hidden"],
        ["loss=kd_minilmv2"],
        ["loss=kd_rkd"],
    ]


def test_the_directory_is_known_before_the_jobs() -> None:
    assert combinations("train", ["run.dir=there", "seed=0,1"]).directory == Path("there").absolute()
    assert combinations("run", ["seed=0,1"]).directory == Path("runs/recipes/digits").absolute()
    assert combinations("evaluate", ["run=one,two"]).jobs == [["run=one"], ["run=two"]]


@pytest.mark.parametrize(
    ("overrides", "key", "fix"),
    [
        (["loss.term.ce.wieght=1,2"], "loss.term.ce.wieght", "loss.term.ce.weight"),
        (["optim.optimizer.lr=interval(0.1,1)"], "optim.optimizer.lr", "hydra/sweeper=optuna"),
        (["loss=kdd,ce"], "loss", "kd"),
        (["seed=choice(1"], "seed", "quote"),
    ],
)
def test_what_cannot_be_swept_is_refused(overrides: list[str], key: str, fix: str) -> None:
    with pytest.raises(UserError) as caught:
        combinations("train", overrides)
    assert caught.value.key == key
    assert fix in caught.value.fix


def test_values_are_those_hydra_would_set() -> None:
    given = ["seed=3", "loss=kd", "optim.optimizer.lr=1.0e-3", "+student.config.layers=[1,2]", "log_every=null"]
    assert values_of(given) == {
        "seed": 3,
        "loss": "kd",
        "optim.optimizer.lr": 1.0e-3,
        "student.config.layers": [1, 2],
        "log_every": None,
    }
