"""What every term of `conf/loss/term` must be, whatever its formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from .registry import (
    CONSTANT_WEIGHT_TERMS,
    CONTRASTIVE_TERMS,
    COUPLED_TERMS,
    HARD_TARGET_TERMS,
    LOGIT_TERMS,
    SEPARATE_TERMS,
    TEACHER_TERMS,
    TEMPERED_TERMS,
    TERM_NAMES,
    count_rows,
    least,
    loss_of,
    make_objective,
    make_step,
    select,
    student_gradient,
)

CUTS = {"4x4": [4] * 4, "16x1": [1] * 16, "uneven": [1, 5, 7, 3], "with an empty one": [9, 0, 7]}


def assert_loss_and_gradient_vanish(name: str, **options: object) -> None:
    step = make_step(noise=0.0)
    objective = make_objective(name, step, **options)
    loss = loss_of(objective, step)
    loss.backward()
    assert abs(loss.item() - least(objective.terms[name], step)) < 1e-12  # type: ignore[arg-type]
    assert student_gradient(step).abs().max() < 1e-12


@pytest.mark.parametrize("name", [name for name in TEACHER_TERMS if name not in HARD_TARGET_TERMS | CONTRASTIVE_TERMS])
def test_a_student_equal_to_its_teacher_is_left_alone(name: str) -> None:
    assert_loss_and_gradient_vanish(name)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("name", TEMPERED_TERMS)
def test_a_student_equal_to_its_teacher_is_left_alone_at_every_temperature(name: str, temperature: float) -> None:
    assert_loss_and_gradient_vanish(name, temperature=temperature)


@pytest.mark.parametrize("options", [{"standardise": True}, {"focus": 2.0}])
@pytest.mark.parametrize("name", [name for name in TEMPERED_TERMS if name != "forward_ce"])  # focus moves its least
def test_a_student_equal_to_its_teacher_is_left_alone_under_every_wrapper(name: str, options: dict) -> None:
    assert_loss_and_gradient_vanish(name, **options)


@pytest.mark.parametrize("shifted", ["student_logits", "teacher_logits"])
@pytest.mark.parametrize("name", LOGIT_TERMS)
def test_a_constant_added_to_all_logits_changes_nothing(name: str, shifted: str) -> None:
    step = make_step()
    objective = make_objective(name, step)
    before = loss_of(objective, step).item()
    setattr(step, shifted, getattr(step, shifted) + 5.0)
    assert loss_of(objective, step).item() == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in TERM_NAMES if name not in CONSTANT_WEIGHT_TERMS])
def test_the_gradient_is_the_derivative_of_the_value(name: str) -> None:
    step = make_step(num_rows=5)
    assert step.student_logits is not None
    assert step.student_embeddings is not None
    objective = make_objective(name, step)
    inputs = [step.student_logits, step.student_embeddings, *step.student_hidden.values()]

    def loss(*given: Tensor) -> Tensor:
        step.student_logits, step.student_embeddings, *hidden = given
        step.student_hidden = dict(zip(step.student_hidden, hidden, strict=True))
        return loss_of(objective, step)

    value = loss(*inputs)
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    is_read = [gradient is not None for gradient in gradients]

    def loss_of_read(*read: Tensor) -> Tensor:
        left = iter(read)
        return loss(*(next(left) if flag else given for flag, given in zip(is_read, inputs, strict=True)))

    others = [given if flag else torch.rand_like(given) for flag, given in zip(is_read, inputs, strict=True)]
    assert torch.equal(loss(*others), value), "an input without a gradient moves the loss"
    assert torch.autograd.gradcheck(loss_of_read, [given for flag, given in zip(is_read, inputs, strict=True) if flag])


@pytest.mark.parametrize("name", TERM_NAMES)
@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_bfloat16_logits_do_not_make_a_loss_negative_or_coarse(name: str, noise: float) -> None:
    coarse = make_step(num_rows=64, dtype=torch.bfloat16, noise=noise)
    assert coarse.student_logits is not None
    assert coarse.teacher_logits is not None
    exact = make_step(num_rows=64, noise=noise)
    exact.student_logits, exact.teacher_logits = coarse.student_logits.double(), coarse.teacher_logits.double()
    exact.student_hidden = {path: value.double() for path, value in coarse.student_hidden.items()}
    exact.teacher_hidden = {path: value.double() for path, value in coarse.teacher_hidden.items()}
    assert coarse.student_embeddings is not None
    assert coarse.teacher_embeddings is not None
    exact.student_embeddings = coarse.student_embeddings.double()
    exact.teacher_embeddings = coarse.teacher_embeddings.double()
    objective, exactly = make_objective(name, coarse), make_objective(name, exact)
    exactly.load_state_dict(objective.state_dict())  # random weights depend on the dtype they are drawn in
    loss = loss_of(objective, coarse)
    assert loss.dtype == torch.float32
    assert loss.item() >= 0.0
    assert loss.item() == pytest.approx(loss_of(exactly, exact).item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
@pytest.mark.parametrize("name", SEPARATE_TERMS)
def test_the_cut_into_micro_batches_moves_neither_loss_nor_gradient(name: str, cut: list[int]) -> None:
    whole = make_step(dtype=torch.float32)
    objective = make_objective(name, whole)
    total_rows = count_rows(whole)
    expected = objective(whole, total_rows)[0]
    expected.backward()

    pieces = make_step(dtype=torch.float32)
    loss = torch.zeros(())
    for rows in torch.arange(16).split(cut):
        share = objective(select(pieces, rows), total_rows)[0]
        share.backward()
        loss += share.detach()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    difference = student_gradient(pieces) - student_gradient(whole)
    assert difference.norm() <= 1e-5 * student_gradient(whole).norm()


@pytest.mark.parametrize("name", [name for name in COUPLED_TERMS if name not in CONTRASTIVE_TERMS])
def test_a_term_that_says_it_couples_rows_does(name: str) -> None:
    step = make_step()
    objective = make_objective(name, step)
    whole = loss_of(objective, step).item()
    parts = sum(objective(select(step, rows), count_rows(step))[0].item() for rows in torch.arange(16).split(4))
    assert parts != pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in TEACHER_TERMS if name not in CONTRASTIVE_TERMS])
def test_a_shuffled_teacher_raises_the_loss(name: str) -> None:
    step = make_step(noise=0.1)
    objective = make_objective(name, step)
    aligned = loss_of(objective, step).item()
    assert step.teacher_logits is not None
    assert step.teacher_embeddings is not None
    step.teacher_logits = step.teacher_logits.roll(1, dims=0)
    step.teacher_embeddings = step.teacher_embeddings.roll(1, dims=0)
    step.teacher_hidden = {path: value.roll(1, dims=0) for path, value in step.teacher_hidden.items()}
    assert loss_of(objective, step).item() > 2 * aligned


@pytest.mark.parametrize("name", TERM_NAMES)
def test_a_micro_batch_without_rows_contributes_zero_with_a_live_graph(name: str) -> None:
    step = make_step()
    objective = make_objective(name, step)
    empty = select(step, torch.arange(0))
    loss = objective(empty, dict.fromkeys(count_rows(step), 0))[0]
    loss.backward()
    assert loss.item() == 0.0
    assert student_gradient(step).abs().max() == 0.0
