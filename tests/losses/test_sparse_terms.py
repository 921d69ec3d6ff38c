"""Terms on a teacher of whom only some classes are known: the properties of all terms, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from potstill.errors import UserError
from potstill.losses.sparse import TOPK_MODES, SparseLogits
from potstill.objective import Objective
from tests.tiers import one_and_others

from .registry import (
    SPARSE_TERMS,
    TEACHER_LOGIT_TERMS,
    count_rows,
    loss_of,
    make_objective,
    make_sparse_step,
    make_step,
    make_term,
    select,
    student_gradient,
)

DIVERGENCES = ("tail", "renormalise_both")  # the modes that are divergences: at 0 where the models agree
each_term = pytest.mark.parametrize("name", SPARSE_TERMS)
each_mode = pytest.mark.parametrize("mode", TOPK_MODES)
ragged = pytest.mark.parametrize("ragged", [False, True])


def test_three_divergences_take_some_classes() -> None:
    assert SPARSE_TERMS == ["jsd", "kd", "reverse_kl"]


@ragged
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("mode", DIVERGENCES)
@each_term
def test_a_student_equal_to_its_teacher_is_left_alone(name: str, mode: str, temperature: float, ragged: bool) -> None:
    step = make_sparse_step(noise=0.0, ragged=ragged)
    if temperature != 1.0 and mode == "tail":  # unknown classes are then taken for equally probable: so they must be
        assert step.student_logits is not None
        assert step.teacher_sparse is not None
        log_q = evenly(step.teacher_sparse, step.student_logits.shape[-1])
        step.student_logits = log_q.requires_grad_()
    loss = loss_of(make_objective(name, step, topk_mode=mode, temperature=temperature), step)
    loss.backward()
    assert abs(loss.item()) < 1e-12
    assert student_gradient(step).abs().max() < 1e-12


def evenly(teacher: SparseLogits, num_classes: int) -> Tensor:
    """Log-probabilities of all classes: the known, and what they leave in equal parts."""
    known = teacher.log_p > -torch.inf
    rest = -torch.expm1(teacher.log_p.logsumexp(dim=-1, keepdim=True))
    log_q = (rest / (num_classes - known.sum(dim=-1, keepdim=True))).log().expand(-1, num_classes).clone()
    for row in range(len(log_q)):
        log_q[row, teacher.ids[row][known[row]]] = teacher.log_p[row][known[row]]
    return log_q


@ragged
@each_mode
@each_term
def test_the_gradient_is_the_derivative_of_the_value(name: str, mode: str, ragged: bool) -> None:
    step = make_sparse_step(num_rows=5, ragged=ragged)
    objective = make_objective(name, step, topk_mode=mode)

    def loss(student_logits: Tensor) -> Tensor:
        step.student_logits = student_logits
        return loss_of(objective, step)

    assert step.student_logits is not None
    assert torch.autograd.gradcheck(loss, (step.student_logits,))


@each_mode
@each_term
def test_a_constant_added_to_all_logits_changes_nothing(name: str, mode: str) -> None:
    step = make_sparse_step()
    objective = make_objective(name, step, topk_mode=mode)
    before = loss_of(objective, step).item()
    assert step.student_logits is not None
    step.student_logits = step.student_logits + 5.0
    assert loss_of(objective, step).item() == pytest.approx(before, rel=1e-12)


@ragged
@each_term
def test_the_cut_into_micro_batches_moves_neither_loss_nor_gradient(name: str, ragged: bool) -> None:
    whole, pieces = (make_sparse_step(dtype=torch.float32, ragged=ragged) for _ in range(2))
    objective = make_objective(name, whole)
    expected = objective(whole, count_rows(whole))[0]
    expected.backward()
    shares = [objective(select(pieces, rows), count_rows(whole))[0] for rows in torch.arange(16).split([1, 9, 0, 6])]
    torch.stack(shares).sum().backward()
    assert sum(share.item() for share in shares) == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(student_gradient(pieces), student_gradient(whole))


@each_term
def test_bfloat16_logits_and_float16_values_stay_close_and_above_zero(name: str) -> None:
    coarse, exact = make_sparse_step(dtype=torch.bfloat16, num_rows=64), make_sparse_step(num_rows=64)
    assert coarse.student_logits is not None
    assert exact.teacher_sparse is not None
    exact.student_logits = coarse.student_logits.double()
    coarse.teacher_sparse = SparseLogits(exact.teacher_sparse.log_p.half(), exact.teacher_sparse.ids)
    losses = [loss_of(make_objective(name, step), step) for step in (coarse, exact)]
    assert losses[0].dtype == torch.float32
    assert losses[0].item() >= 0.0
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-2)


@each_term
def test_a_shuffled_teacher_raises_the_loss(name: str) -> None:
    step = make_sparse_step(noise=0.1)
    objective = make_objective(name, step)
    aligned = loss_of(objective, step).item()
    assert step.teacher_sparse is not None
    step.teacher_sparse = step.teacher_sparse.take(torch.arange(16).roll(1))
    assert loss_of(objective, step).item() > 2 * aligned


@pytest.mark.parametrize("mode", ["tail", "raw", "renormalise_both"])
@each_term
def test_almost_all_classes_are_almost_the_dense_term(name: str, mode: str) -> None:
    dense, most = make_step(), make_sparse_step(top_k=7)
    expected = loss_of(make_objective(name, dense), dense).item()
    assert loss_of(make_objective(name, most, topk_mode=mode), most).item() == pytest.approx(expected, rel=1e-9)


@each_term
def test_every_mode_is_another_value(name: str) -> None:
    step = make_sparse_step()
    values = [round(loss_of(make_objective(name, step, topk_mode=mode), step).item(), 6) for mode in TOPK_MODES]
    assert len(set(values)) == len(TOPK_MODES)


@each_term
def test_what_is_absent_of_a_row_does_not_count(name: str) -> None:
    step, short = make_sparse_step(top_k=3, ragged=True), make_sparse_step(top_k=1)
    rows = torch.arange(1, 16, 2)
    for mode in TOPK_MODES:
        objective = make_objective(name, step, topk_mode=mode)
        found, expected = (loss_of(objective, select(each, rows)).item() for each in (step, short))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), mode


def test_samples_give_the_gradient_of_the_dense_term_on_average() -> None:
    step = make_step(num_rows=1)
    assert step.teacher_logits is not None
    assert step.student_logits is not None
    loss_of(make_objective("kd", step, temperature=1.0), step).backward()
    expected = student_gradient(step)[0, :7]
    drawn = step.teacher_logits.softmax(dim=-1).expand(20_000, -1).multinomial(4, replacement=True)
    counts = torch.nn.functional.one_hot(drawn, 7).sum(dim=1).double()
    most, ids = counts.topk(4, dim=-1)  # all that were drawn
    log_p = (most / 4).log()
    student = step.student_logits.detach().expand(20_000, -1).clone().requires_grad_()
    sampled = make_sparse_step(num_rows=20_000)
    sampled.student_logits, sampled.teacher_sparse = student, SparseLogits(log_p, ids, is_sampled=True)
    objective = Objective({"kd": make_term("kd", temperature=1.0, topk_mode="raw")})
    loss_of(objective, sampled).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad.sum(dim=0), expected, atol=0.01, rtol=0.02)


REFUSED = [
    ("reverse_kl", {}, "loss.term.reverse_kl"),
    ("jsd", {}, "loss.term.jsd"),
    ("kd", {"temperature": 1.0}, "loss.term.kd.topk_mode"),
    ("kd", {"topk_mode": "raw", "temperature": 2.0}, "loss.term.kd.temperature"),
]


@pytest.mark.parametrize(("name", "options", "key"), REFUSED)
def test_what_is_not_right_on_average_takes_no_samples(name: str, options: dict, key: str) -> None:
    step = make_sparse_step()
    assert step.teacher_sparse is not None
    step.teacher_sparse = SparseLogits(step.teacher_sparse.log_p, step.teacher_sparse.ids, is_sampled=True)
    with pytest.raises(UserError) as caught:
        make_objective(name, step, **options)
    assert caught.value.key == key


@pytest.mark.parametrize("option", [{"standardise": True}, {"focus": 2.0}], ids=str)
@pytest.mark.parametrize("name", one_and_others(*SPARSE_TERMS))
def test_what_looks_at_all_classes_is_refused(name: str, option: dict) -> None:
    with pytest.raises(UserError, match="only some are known"):
        make_objective(name, make_sparse_step(), **option)


def test_reverse_kl_on_raw_classes_warns(caplog: pytest.LogCaptureFixture) -> None:
    make_objective("reverse_kl", make_sparse_step(), topk_mode="raw")
    assert "Train with tail" in caplog.text
    caplog.clear()
    make_objective("reverse_kl", make_sparse_step(), topk_mode="tail")
    assert not caplog.text


def test_an_unknown_mode_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="tail") as caught:
        Objective({"kd": make_term("kd", topk_mode="tial")})
    assert caught.value.key == "loss.term.kd.topk_mode"


@pytest.mark.parametrize("name", [name for name in TEACHER_LOGIT_TERMS if name not in SPARSE_TERMS])
def test_a_term_that_needs_all_classes_is_named_before_anything_is_loaded(name: str) -> None:
    with pytest.raises(UserError, match=rf"loss\.term\.{name} ") as caught:
        Objective({name: make_term(name)}).refuse_sparse("teacher.cache.form", "top_k", "Keep all.")
    assert caught.value.key == "teacher.cache.form"
