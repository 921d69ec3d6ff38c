from __future__ import annotations

import math

import pytest
import torch

from potstill.errors import UserError
from potstill.losses.terms import JSD, CrossEntropy, ForwardKL, HiddenMSE, Term
from potstill.objective import Objective

from .registry import TERM_DIRECTORY, TERM_NAMES, make_objective, make_step, make_term

IMPOSSIBLE = [
    ("weight", CrossEntropy(weight=-0.5)),
    ("weight", CrossEntropy(weight=math.inf)),
    ("weight", CrossEntropy(weight=True)),
    ("label_smoothing", CrossEntropy(label_smoothing=1.5)),
    ("temperature", ForwardKL(temperature=0.0)),
    ("temperature", ForwardKL(temperature=-2.0)),
    ("temperature", ForwardKL(temperature=math.inf)),
    ("t2_scaling", ForwardKL(t2_scaling="yes")),  # type: ignore[arg-type]
    ("temperature", JSD(temperature=0.0)),
    ("beta", JSD(beta=1.1)),
    ("beta", JSD(beta=-0.1)),
    ("weight", HiddenMSE("a", "b", weight=-1.0)),
    ("projector", HiddenMSE("a", "b", projector="lienar")),
    ("student_tap", HiddenMSE(3, "b")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("option", "term"), IMPOSSIBLE)
def test_an_impossible_option_is_refused_with_the_key_a_user_would_type(option: str, term: Term) -> None:
    with pytest.raises(UserError) as caught:
        Objective({"mine": term})
    assert caught.value.key == f"loss.term.mine.{option}"
    assert caught.value.value == getattr(term, option)
    assert caught.value.fix


def test_a_number_that_yaml_read_as_text_is_explained() -> None:
    with pytest.raises(UserError, match=r"is text.*\n.*1\.0e-5"):
        Objective({"ce": CrossEntropy(weight="1e-5")})  # type: ignore[arg-type]


def test_a_misspelt_projector_is_told_the_nearest() -> None:
    with pytest.raises(UserError, match="Nearest: 'linear'"):
        Objective({"hidden_mse": HiddenMSE("a", "b", projector="lienar")})


@pytest.mark.parametrize("name", TERM_NAMES)
def test_a_term_lands_under_its_own_key(name: str) -> None:
    header = (TERM_DIRECTORY / f"{name}.yaml").read_text().splitlines()[0]
    assert header == f"# @package loss.term.{name}"
    make_term(name).validate()


@pytest.mark.parametrize("option", ["label_smoothing", "temperature", "t2_scaling", "beta"])
def test_every_option_of_a_term_moves_its_value(option: str) -> None:
    name, changed = {
        "label_smoothing": ("ce", 0.3),
        "temperature": ("reverse_kl", 3.0),
        "t2_scaling": ("kd", False),
        "beta": ("jsd", 0.1),
    }[option]
    step = make_step()
    values = [
        make_objective(name, step, **options)(step, {"labelled": 1, "scored": 1})[0].item()
        for options in ({}, {option: changed})
    ]
    assert values[0] != pytest.approx(values[1], rel=1e-2)


def hidden_term(student_shape: tuple[int, ...], teacher_shape: tuple[int, ...], projector: str) -> HiddenMSE:
    term = HiddenMSE("student.layer", "teacher.layer", projector=projector)
    Objective({"hidden_mse": term})
    student = {"student.layer": torch.randn(student_shape)}
    term.prepare(student, {"teacher.layer": torch.randn(teacher_shape)})
    return term


def test_widths_that_differ_need_a_projector() -> None:
    with pytest.raises(UserError, match="projector=linear") as caught:
        hidden_term((6, 5), (6, 8), projector="none")
    assert caught.value.key == "loss.term.hidden_mse.projector"


def test_taps_whose_rows_do_not_match_are_refused_before_training() -> None:
    with pytest.raises(UserError, match=r"\[6, 5\].*\[7, 8\]"):
        hidden_term((6, 5), (7, 8), projector="linear")


def test_a_projector_learns_a_teacher_that_is_an_affine_map_of_the_student() -> None:
    torch.manual_seed(0)
    term = hidden_term((64, 5), (64, 8), projector="linear")
    student = torch.randn(64, 5)
    teacher = student @ torch.randn(5, 8) + 1.0
    optimizer = torch.optim.Adam(term.parameters(), lr=0.1)
    for _ in range(200):
        loss = term({"student.layer": student}, {"teacher.layer": teacher}).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-4


def test_without_a_projector_nothing_is_learned_and_states_are_compared_as_they_are() -> None:
    term = hidden_term((6, 5), (6, 5), projector="none")
    assert not list(term.parameters())
    ones, zeros = torch.ones(6, 5), torch.zeros(6, 5)
    assert term({"student.layer": ones}, {"teacher.layer": zeros}).tolist() == [1.0] * 6
