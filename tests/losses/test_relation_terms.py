from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from potstill.errors import UserError
from potstill.losses import relation
from potstill.losses.relation_terms import CKA, PKT, CorrelationCongruence, RKDAngle, RKDDistance
from potstill.losses.terms import Rows, Term
from potstill.objective import Objective

from .registry import COUPLED_TERMS, TAP, make_objective, make_step, select
from .test_feature_terms import prepared


@pytest.mark.parametrize("name", COUPLED_TERMS)
def test_the_last_batch_of_an_epoch_may_be_one_example(name: str) -> None:
    step = make_step()
    objective = make_objective(name, step)
    for num_rows in (1, 2):
        rows = select(step, torch.arange(num_rows))
        loss = objective(rows, dict.fromkeys(get_args(Rows), num_rows))[0]
        loss.backward()
        assert loss.isfinite()


def test_what_is_not_one_row_an_image_is_refused() -> None:
    step = make_step(num_rows=6)
    step.labels = step.labels[:2]
    with pytest.raises(UserError, match=r"relates examples, of which there are 2.*\[6, 5\]") as caught:
        Objective({"mine": PKT(TAP, TAP)}).prepare(step)
    assert caught.value.key == "loss.term.mine.student_tap"
    make = make_objective("cka", step)  # positions are as good as examples to an alignment
    assert make(step, {"positions": 6})[0].isfinite()


@pytest.mark.parametrize(
    ("position", "rows"), [("first", [0, 3, 4]), ("last", [2, 3, 5]), ("mean", [[0, 1, 2], [3, 3, 3], [4, 4, 5, 5]])]
)
def test_a_text_stands_in_its_relations_by_one_position_or_the_mean(position: str, rows: list) -> None:
    step = make_step(num_rows=6)
    step.lengths, step.labels = torch.tensor([3, 1, 2]), step.labels[:3]
    objective = Objective({"mine": PKT(TAP, TAP, position=position)})
    objective.prepare(step)
    student, teacher = (
        torch.stack([hidden[TAP][row].reshape(-1, 5).mean(dim=0) for row in rows])
        for hidden in (step.student_hidden, step.teacher_hidden)
    )
    value = objective(step, {"examples": 3})[0]
    torch.testing.assert_close(value, relation.pkt(student, teacher).mean())


def test_an_alignment_of_other_rows_is_refused() -> None:
    with pytest.raises(UserError, match="equally many rows"):
        prepared(CKA("a", "b"), [(6, 5)], [(7, 8)])


def test_widths_may_differ_without_a_projector() -> None:
    step = make_step(num_rows=6)
    generator = torch.Generator().manual_seed(1)
    wider = torch.randn(6, 9, 2, 2, generator=generator, dtype=torch.float64)
    step.teacher_hidden = {TAP: wider}
    objective = Objective({"mine": PKT(TAP, TAP)})
    objective.prepare(step)
    value = objective(step, {"examples": 6})[0]
    torch.testing.assert_close(value, relation.pkt(step.student_hidden[TAP], wider).mean())
    assert not list(objective.parameters())


@pytest.mark.parametrize(
    ("option", "term"),
    [
        ("gamma", CorrelationCongruence("a", "b", gamma=0.0)),
        ("order", CorrelationCongruence("a", "b", order=0)),
        ("order", CorrelationCongruence("a", "b", order=1.5)),  # type: ignore[arg-type]
        ("position", PKT("a", "b", position="middle")),
        ("weight", RKDDistance(weight=-1.0)),
    ],
)
def test_impossible_options_are_refused(option: str, term: Term) -> None:
    with pytest.raises(UserError) as caught:
        Objective({"mine": term})
    assert caught.value.key == f"loss.term.mine.{option}"


@pytest.mark.parametrize("options", [{"gamma": 1.0}, {"order": 4}, {"order": None}])
def test_the_options_of_the_kernel_move_its_value(options: dict[str, float | None]) -> None:
    step = make_step()
    values = [
        make_objective("correlation_congruence", step, **given)(step, {"examples": 16})[0] for given in ({}, options)
    ]
    assert values[0].item() != pytest.approx(values[1].item(), rel=1e-2)


@pytest.mark.parametrize(("term", "loss"), [(RKDDistance(), relation.rkd_distance), (RKDAngle(), relation.rkd_angle)])
def test_logits_are_related_over_all_scored_rows(term: Term, loss) -> None:
    step = make_step(num_rows=5)
    student, teacher = step.student_logits, step.teacher_logits
    assert isinstance(student, Tensor)
    assert isinstance(teacher, Tensor)
    torch.testing.assert_close(Objective({"mine": term})(step, {"scored": 5})[0], loss(student, teacher).mean())


@pytest.mark.parametrize("name", ["rkd_angle", "rkd_angle_hidden"])
def test_triples_that_no_memory_holds_are_refused_with_rows_and_bytes(name: str) -> None:
    """A batch of tokens has thousands of rows: the first step would end in an allocation of terabytes."""
    objective = make_objective(name, make_step())
    objective.check_rows(dict.fromkeys(get_args(Rows), 512))
    with pytest.raises(UserError, match=r"the 4,096 rows of a batch, 1,10\d GB") as caught:
        objective.check_rows(dict.fromkeys(get_args(Rows), 4096))
    assert caught.value.key == f"loss.term.{name}"
    with pytest.raises(UserError, match="the 2,000 rows"):
        make_objective(name, make_step(num_rows=2000))
