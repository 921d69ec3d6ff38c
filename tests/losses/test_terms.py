from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from omegaconf import OmegaConf

from potstill.errors import UserError
from potstill.losses import response
from potstill.losses.feature_terms import HiddenMSE
from potstill.losses.response_terms import (
    DKD,
    AdaptiveKL,
    ForwardCE,
    HingeRanking,
    ListMLE,
    LogitMSE,
    MultiTemperatureKL,
    SkewForwardKL,
    SkewReverseKL,
)
from potstill.losses.terms import JSD, CrossEntropy, ForwardKL, Rows, Term
from potstill.objective import Objective

from .registry import TEMPERED_TERMS, TERM_DIRECTORY, TERM_NAMES, loss_of, make_objective, make_step, make_term

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
    ("focus", CrossEntropy(focus=0.5)),
    ("focus", ForwardKL(focus=-1.0)),
    ("standardise", ForwardKL(standardise=1)),  # type: ignore[arg-type]
    ("teacher_temperature", ForwardCE(teacher_temperature=0.0)),
    ("skew", SkewForwardKL(skew=1.0)),
    ("skew", SkewReverseKL(skew=-0.1)),
    ("head_mass", AdaptiveKL(head_mass=1.0)),
    ("centre", LogitMSE(centre="yes")),  # type: ignore[arg-type]
    ("target_weight", DKD(target_weight=-1.0)),
    ("non_target_weight", DKD(non_target_weight=math.inf)),
    ("temperatures", MultiTemperatureKL(temperatures=[])),
    ("temperatures", MultiTemperatureKL(temperatures=[2.0, 0.0])),
    ("temperatures", MultiTemperatureKL(temperatures="2,4")),  # type: ignore[arg-type]
    ("temperatures", MultiTemperatureKL(temperatures=4.0)),  # type: ignore[arg-type]
    ("t2_scaling", MultiTemperatureKL(t2_scaling=1)),  # type: ignore[arg-type]
    ("margin", HingeRanking(margin=0.0)),
    ("top_k", HingeRanking(top_k=1)),
    ("top_k", ListMLE(top_k=0)),
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


OPTIONS = {
    "ce": {"label_smoothing": 0.3, "focus": 2.0},
    "kd": {"temperature": 3.0, "t2_scaling": False, "standardise": True, "focus": 2.0},
    "reverse_kl": {"temperature": 3.0, "standardise": True, "focus": 2.0},
    "jsd": {"beta": 0.1, "temperature": 3.0, "standardise": True, "focus": 2.0},
    "forward_ce": {"temperature": 3.0, "teacher_temperature": 3.0, "standardise": True, "focus": 2.0},
    "skew_forward_kl": {"skew": 0.5, "temperature": 3.0, "standardise": True, "focus": 2.0},
    "skew_reverse_kl": {"skew": 0.5, "temperature": 3.0, "standardise": True, "focus": 2.0},
    "adaptive_kl": {"head_mass": 0.95, "temperature": 3.0, "standardise": True, "focus": 2.0},
    "tvd": {"temperature": 3.0, "standardise": True, "focus": 2.0},
    "logit_mse": {"centre": False},
    "dkd": {"target_weight": 0.0, "non_target_weight": 2.0, "temperature": 2.0, "standardise": True, "focus": 2.0},
    "dist_inter": {"temperature": 3.0, "standardise": True, "focus": 2.0},
    "dist_intra": {"temperature": 3.0, "standardise": True, "focus": 2.0},
    "multi_temperature_kl": {"temperatures": [1.0], "t2_scaling": False},
    "hinge_ranking": {"margin": 0.1, "top_k": 3},
    "list_mle": {"top_k": 3},
    "minilm": {"student_layer": 0, "teacher_layer": 0},
    "minilm_v2": {"student_layer": 0, "teacher_layer": 0, "num_heads": 1, "relations": ["keys"]},
}


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in OPTIONS for option in OPTIONS[name]])
def test_every_option_of_a_term_moves_its_value(name: str, option: str) -> None:
    step = make_step()
    values = [
        make_objective(name, step, **options)(step, dict.fromkeys(get_args(Rows), 1))[0].item()
        for options in ({}, {option: OPTIONS[name][option]})
    ]
    assert values[0] != pytest.approx(values[1], rel=1e-2)


@pytest.mark.parametrize("name", OPTIONS)
def test_no_option_of_a_term_is_left_without_effect(name: str) -> None:
    elsewhere = {"_target_", "weight", "topk_mode"}  # topk_mode: test_sparse_terms.py
    configured = set(OmegaConf.load(TERM_DIRECTORY / f"{name}.yaml")) - elsewhere
    assert configured - {"t2_scaling"} == set(OPTIONS[name]) - {"t2_scaling"}


def test_squared_temperature_can_be_had_and_left_out_of_every_tempered_term() -> None:
    step = make_step()
    for name in TEMPERED_TERMS:
        with_, without = (
            make_objective(name, step, temperature=3.0, t2_scaling=scaled)(step, {"labelled": 1, "scored": 1})[0]
            for scaled in (True, False)
        )
        assert with_.item() == pytest.approx(9.0 * without.item()), name


def test_more_places_than_classes_are_refused_before_training() -> None:
    with pytest.raises(UserError, match="more than the 7 classes") as caught:
        make_objective("hinge_ranking", make_step(), top_k=8)
    assert caught.value.key == "loss.term.hinge_ranking.top_k"


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [("dist_inter", {}, "loss.term.dist_inter"), ("kd", {"standardise": True}, "loss.term.kd.standardise")],
)
def test_two_classes_that_leave_no_gradient_are_refused(name: str, options: dict[str, bool], key: str) -> None:
    step = make_step()
    objective = make_objective(name, step, **options)
    for field in ("student_logits", "teacher_logits"):
        setattr(step, field, getattr(step, field)[:, :2].detach())
    student = step.student_logits = torch.nn.Parameter(step.student_logits)  # type: ignore[arg-type]
    loss_of(objective, step).backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6, "no need to refuse"
    with pytest.raises(UserError, match="gradient") as caught:
        objective.prepare(step)
    assert caught.value.key == key
    step.student_logits, step.teacher_logits = torch.randn(4, 3), torch.randn(4, 3)
    objective.prepare(step)


def test_all_pairs_of_a_vocabulary_are_not_formed_by_default() -> None:
    rows = torch.zeros(2, 1001)
    with pytest.raises(UserError, match="all pairs of 1001 classes"):
        HingeRanking().prepare(rows, rows)
    HingeRanking(top_k=10).prepare(rows, rows)


def test_the_mean_of_dist_within_classes_is_that_of_the_whole_batch() -> None:
    step = make_step()
    assert step.student_logits is not None
    assert step.teacher_logits is not None
    expected = response.dist_intra(step.student_logits, step.teacher_logits).mean()
    assert loss_of(make_objective("dist_intra", step), step).item() == pytest.approx(expected.item())


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
