from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from potstill.losses import divergence
from potstill.losses.sparse import TOPK_MODES, Sparse, TopkMode, sparse_forward_kl, sparse_jsd, sparse_reverse_kl

NUM_CLASSES, TOP_K = 12, 4
SPARSE: dict[str, Callable[..., Sparse]] = {
    "forward_kl": sparse_forward_kl,
    "reverse_kl": sparse_reverse_kl,
    "jsd": lambda *tensors, **options: sparse_jsd(*tensors, beta=0.3, **options),
}
DENSE: dict[str, Callable[..., Tensor]] = {
    "forward_kl": divergence.forward_kl,
    "reverse_kl": divergence.reverse_kl,
    "jsd": lambda *tensors, **options: divergence.jsd(*tensors, beta=0.3, **options),
}
each_loss = pytest.mark.parametrize("name", SPARSE)


def logits(seed: int, num_rows: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2.0 * torch.randn(num_rows, NUM_CLASSES, generator=generator, dtype=torch.float64)


def known(teacher_NC: Tensor, top_k: int = TOP_K) -> tuple[Tensor, Tensor]:
    """The teacher's top-k log-probabilities at temperature 1, and their classes."""
    top = teacher_NC.log_softmax(dim=-1).topk(top_k, dim=-1)
    return top.values, top.indices


def normaliser(teacher_NC: Tensor, temperature: float) -> Tensor:
    return (teacher_NC.log_softmax(dim=-1) / temperature).logsumexp(dim=-1)


def merged(rows_NC: Tensor, ids_NK: Tensor, temperature: float) -> Tensor:
    """Tempered over all classes, then the others added up: `[N, K + 1]` log-probabilities."""
    p_NC = (rows_NC / temperature).softmax(dim=-1)
    p_NK = p_NC.gather(-1, ids_NK)
    return torch.cat([p_NK, 1.0 - p_NK.sum(dim=-1, keepdim=True)], dim=-1).log()


@each_loss
@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
def test_the_tail_is_one_class_that_is_merged_after_tempering(name: str, temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    stored, ids = known(teacher)
    options = {"temperature": temperature, "log_normaliser_N": normaliser(teacher, temperature)}
    expected = DENSE[name](merged(student, ids, temperature), merged(teacher, ids, temperature)) * temperature**2
    torch.testing.assert_close(SPARSE[name](student, stored, ids, **options).values, expected)


@each_loss
@pytest.mark.parametrize("mode", ["tail", "renormalise_both"])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("exact", [False, True])
def test_a_student_equal_to_its_teacher_is_left_alone(
    name: str, mode: TopkMode, temperature: float, exact: bool
) -> None:
    student = logits(0).requires_grad_()
    teacher = student.detach()
    options = {"log_normaliser_N": normaliser(teacher, temperature)} if exact else {}
    values = SPARSE[name](student, *known(teacher), temperature=temperature, topk_mode=mode, **options).values
    values.sum().backward()
    assert values.abs().max() < 1e-12
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-12


@each_loss
@pytest.mark.parametrize("mode", ["raw", "renormalise_teacher"])
def test_the_other_modes_move_a_student_that_equals_its_teacher(name: str, mode: TopkMode) -> None:
    student = logits(0).requires_grad_()
    SPARSE[name](student, *known(student.detach()), topk_mode=mode).values.sum().backward()
    assert student.grad is not None
    moved = student.grad.abs().max().item()
    assert moved < 1e-12 if (name, mode) == ("jsd", "raw") else moved > 1e-3


NEVER_NEGATIVE = [(name, mode) for name in SPARSE for mode in ("tail", "renormalise_both")]
NEVER_NEGATIVE += [("jsd", "raw"), ("jsd", "renormalise_teacher"), ("forward_kl", "renormalise_teacher")]


@pytest.mark.parametrize(("name", "mode"), NEVER_NEGATIVE)
def test_what_is_said_to_be_a_divergence_is_never_negative(name: str, mode: TopkMode) -> None:
    for noise in (0.01, 1.0, 10.0):
        teacher = logits(1, num_rows=200)
        student = teacher + noise * logits(0, num_rows=200)
        assert (SPARSE[name](student, *known(teacher), topk_mode=mode).values >= -1e-12).all()


def test_raw_reverse_kl_rewards_a_student_for_leaving_what_the_teacher_knows() -> None:
    teacher = logits(1)
    stored, ids = known(teacher)
    outside = teacher.scatter(-1, ids, -20.0)
    assert (sparse_reverse_kl(outside, stored, ids, topk_mode="raw").values < 1e-6).all()
    assert (sparse_reverse_kl(outside, stored, ids, topk_mode="tail").values > 0.1).all()


@each_loss
@pytest.mark.parametrize("mode", TOPK_MODES)
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_with_every_class_known_it_is_the_dense_divergence(name: str, mode: TopkMode, temperature: float) -> None:
    student, teacher = logits(0), logits(1)
    values = SPARSE[name](student, *known(teacher, NUM_CLASSES), temperature=temperature, topk_mode=mode).values
    torch.testing.assert_close(values, DENSE[name](student, teacher, temperature=temperature))


@each_loss
def test_merging_classes_never_raises_the_divergence(name: str) -> None:
    student, teacher = logits(0), logits(1)
    values = [SPARSE[name](student, *known(teacher, top_k)).values for top_k in (2, 4, 8)]
    assert all((less <= more + 1e-12).all() for less, more in itertools.pairwise(values))
    assert (values[-1] <= DENSE[name](student, teacher) + 1e-12).all()


@each_loss
def test_other_classes_of_equal_probability_need_no_normaliser(name: str) -> None:
    student, teacher = logits(0), logits(1)
    ids = known(teacher)[1]
    student, teacher = (
        torch.full_like(rows, -3.0).scatter(-1, ids, rows.gather(-1, ids)) for rows in (student, teacher)
    )
    stored = teacher.log_softmax(-1).gather(-1, ids)
    exact = SPARSE[name](student, stored, ids, temperature=2.0, log_normaliser_N=normaliser(teacher, 2.0))
    torch.testing.assert_close(SPARSE[name](student, stored, ids, temperature=2.0).values, exact.values)


@each_loss
@pytest.mark.parametrize("mode", TOPK_MODES)
@pytest.mark.parametrize("exact", [False, True])
def test_the_gradient_is_the_derivative_of_the_value(name: str, mode: TopkMode, exact: bool) -> None:
    teacher = logits(1, num_rows=3)
    options = {"log_normaliser_N": normaliser(teacher, 2.0)} if exact else {}

    def loss(student: Tensor) -> Tensor:
        return SPARSE[name](student, *known(teacher), temperature=2.0, topk_mode=mode, **options).values

    assert torch.autograd.gradcheck(loss, logits(0, num_rows=3).requires_grad_())


@each_loss
@pytest.mark.parametrize("mode", TOPK_MODES)
def test_a_constant_added_to_the_students_logits_changes_nothing(name: str, mode: TopkMode) -> None:
    student, teacher = logits(0), known(logits(1))
    values = SPARSE[name](student, *teacher, temperature=2.0, topk_mode=mode).values
    torch.testing.assert_close(SPARSE[name](student + 5.0, *teacher, temperature=2.0, topk_mode=mode).values, values)


@each_loss
@pytest.mark.parametrize("mode", TOPK_MODES)
def test_bfloat16_is_computed_in_float32(name: str, mode: TopkMode) -> None:
    student = logits(0).bfloat16()
    stored, ids = known(logits(1))
    stored = stored.bfloat16()
    values = SPARSE[name](student, stored, ids, topk_mode=mode).values
    assert values.dtype == torch.float32
    expected = SPARSE[name](student.double(), stored.double(), ids, topk_mode=mode).values
    torch.testing.assert_close(values.double(), expected, rtol=1e-4, atol=1e-6)


@each_loss
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("excess", [0.0, 1e-7, 1e-3])
def test_stored_probabilities_that_round_to_more_than_one_stay_finite(
    name: str, temperature: float, excess: float
) -> None:
    stored = torch.tensor([[0.0 + excess, -40.0]])
    student = torch.tensor([[1.0, 0.0, 0.5]], requires_grad=True)
    values = SPARSE[name](student, stored, torch.tensor([[0, 2]]), temperature=temperature).values
    values.sum().backward()
    assert values.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_the_mass_is_that_of_the_teacher_at_temperature_one() -> None:
    teacher = logits(1)
    stored, ids = known(teacher)
    expected = teacher.softmax(dim=-1).gather(-1, ids).sum(dim=-1)
    for mode in TOPK_MODES:
        torch.testing.assert_close(
            sparse_forward_kl(logits(0), stored, ids, temperature=3.0, topk_mode=mode).mass, expected
        )


def test_a_batch_without_any_row_is_not_an_error() -> None:
    values, mass = sparse_forward_kl(torch.empty(0, 5), torch.empty(0, 2), torch.empty(0, 2, dtype=torch.long))
    assert values.shape == mass.shape == (0,)
