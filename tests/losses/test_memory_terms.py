from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.memory_terms import CRD
from potstill.objective import Objective

from .registry import LAYERS, TAP, loss_of, make_objective, make_step, select


def crd(objective: Objective) -> Any:
    return objective.terms["crd"]


def banks(objective: Objective) -> Tensor:
    return torch.cat([crd(objective).bank.student, crd(objective).bank.teacher], dim=1).clone()


def test_the_bank_learns_after_the_gradient_and_of_the_batch_alone() -> None:
    step = make_step(num_rows=8)
    objective = make_objective("crd", step)
    before = banks(objective)
    loss_of(objective, step).backward()
    assert torch.equal(banks(objective), before)
    objective.update(select(step, torch.tensor([2, 5])))
    changed = (banks(objective) != before).any(dim=1).nonzero().flatten()
    assert changed.tolist() == [2, 5]


def test_a_row_meets_what_an_earlier_batch_left() -> None:
    step = make_step(num_rows=8)
    objective = make_objective("crd", step)
    before = loss_of(objective, step).item()
    objective.update(step)
    assert loss_of(objective, step).item() != pytest.approx(before, rel=1e-3)


def test_both_embeddings_are_trained() -> None:
    step = make_step()
    objective = make_objective("crd", step)
    loss_of(objective, step).backward()
    assert {name.split(".")[2] for name, _ in objective.named_parameters()} == {
        "student_embedding",
        "teacher_embedding",
    }
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in objective.parameters())


@pytest.mark.parametrize(
    ("option", "value"), [("width", 3), ("num_negatives", 2), ("momentum", 0.9), ("temperature", 0.5)]
)
def test_every_option_moves_the_value(option: str, value: float) -> None:
    def second_loss(**options: object) -> float:
        step = make_step()
        objective = make_objective("crd", step, **options)
        loss_of(objective, step)
        objective.update(step)
        return loss_of(objective, step).item()

    assert second_loss(**{option: value}) != pytest.approx(second_loss(), rel=1e-3)


@pytest.mark.parametrize(
    ("option", "value"),
    [("width", 0), ("num_negatives", 1.5), ("momentum", 1.0), ("temperature", 0.0)],
)
def test_impossible_options_are_refused(option: str, value: Any) -> None:
    with pytest.raises(UserError) as caught:
        Objective({"mine": CRD(student_tap=TAP, teacher_tap=TAP, **{option: value})})
    assert caught.value.key == f"loss.term.mine.{option}"


def test_several_taps_are_refused_by_one_bank() -> None:
    with pytest.raises(UserError, match="the bank is of one"):
        Objective({"mine": CRD(student_tap=["a", "b"], teacher_tap=["c", "d"])})


def test_one_example_has_no_other_to_be_told_from() -> None:
    step = make_step(num_rows=1)
    step.num_examples = 1
    with pytest.raises(UserError, match="of which there are none"):
        Objective({"mine": CRD(student_tap=TAP, teacher_tap=TAP)}).prepare(step)


def test_several_layers_are_refused_by_one_bank() -> None:
    term = CRD(student_layer=[0, 1], teacher_layer=[0, 1])
    with pytest.raises(UserError, match="the bank is of one") as caught:
        term.locate(LAYERS, LAYERS)
    assert caught.value.key == "loss.term.CRD.student_layer"
