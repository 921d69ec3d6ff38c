from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses import relation
from potstill.losses.geometry import distances, off_diagonal, unit

LOSSES: dict[str, Callable[..., Tensor]] = {
    "rkd_distance": relation.rkd_distance,
    "rkd_angle": relation.rkd_angle,
    "similarity_preserving": relation.similarity_preserving,
    "correlation_congruence": relation.correlation_congruence,
    "correlation_congruence, exact": lambda *rows: relation.correlation_congruence(*rows, order=None),
    "pkt": relation.pkt,
    "similarity_kl": lambda *rows: relation.similarity_kl(*rows, temperature=0.5),
    "cka_distance": relation.cka_distance,
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(width: int) -> Tensor:
    return torch.linalg.qr(rows(width, width, seed=9))[0]


@every_loss
def test_one_value_a_row_whatever_the_widths(loss: Callable[..., Tensor]) -> None:
    assert loss(rows(6, 5), rows(6, 8, seed=1)).shape == (6,)
    assert loss(rows(6, 2, 3, 4), rows(6, 8, seed=1)).shape == (6,)


@every_loss
def test_the_gradient_is_the_derivative(loss: Callable[..., Tensor]) -> None:
    teacher = rows(5, 4, seed=1)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), rows(5, 3).requires_grad_())


@every_loss
def test_a_student_that_agrees_is_left_alone(loss: Callable[..., Tensor]) -> None:
    teacher = rows(6, 5)
    student = teacher.clone().requires_grad_()
    value = loss(student, teacher)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.abs().max() < 1e-14
    assert gradient.abs().max() < 1e-14


@every_loss
def test_a_rotated_and_scaled_copy_of_the_teacher_agrees(loss: Callable[..., Tensor]) -> None:
    teacher = rows(6, 5)
    assert loss(7.0 * teacher @ rotation(5), teacher).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle", "cka_distance"])
def test_what_may_be_taken_of_logits_is_blind_to_a_shift(name: str) -> None:
    student, teacher = rows(6, 5), rows(6, 5, seed=1)
    shifted = LOSSES[name](student + 3.0, teacher + rows(1, 5, seed=2))
    torch.testing.assert_close(shifted, LOSSES[name](student, teacher))


@every_loss
def test_the_order_of_rows_does_not_matter(loss: Callable[..., Tensor]) -> None:
    student, teacher, order = rows(6, 5), rows(6, 8, seed=1), torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(loss(student[order], teacher[order]), loss(student, teacher)[order])


@every_loss
def test_bfloat16_rows_are_compared_in_float32(loss: Callable[..., Tensor]) -> None:
    student, teacher = rows(6, 5).bfloat16(), rows(6, 8, seed=1).bfloat16()
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), loss(student.double(), teacher.double()), rtol=1e-4, atol=1e-6)


def test_distances_are_taken_in_units_of_their_mean_over_pairs() -> None:
    student, teacher = rows(4, 3), rows(4, 6, seed=1)
    mine, theirs = torch.cdist(student, student), torch.cdist(teacher, teacher)
    mine, theirs = mine / (mine.sum() / 12), theirs / (theirs.sum() / 12)
    expected = F.smooth_l1_loss(mine, theirs, reduction="none").mean(dim=1)
    torch.testing.assert_close(relation.rkd_distance(student, teacher), expected, rtol=1e-9, atol=0.0)


def test_the_angle_of_a_row_is_the_angle_at_it() -> None:
    """The corners of a right-angled triangle against those of an equilateral one."""
    right = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    equal = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]], dtype=torch.float64)
    cosines = torch.tensor([0.0, 0.5**0.5, 0.5**0.5], dtype=torch.float64)
    expected = 2 * 0.5 * (cosines - 0.5).square() / 9  # two orders of the other corners, of 3 x 3
    torch.testing.assert_close(relation.rkd_angle(right, equal), expected)


@pytest.mark.parametrize(
    ("loss", "too_few"),
    [(relation.rkd_distance, 1), (relation.rkd_angle, 2), (relation.similarity_kl, 2), (relation.cka_distance, 1)],
)
def test_too_few_rows_have_no_relation(loss: Callable[..., Tensor], too_few: int) -> None:
    with pytest.raises(AssertionError):
        loss(rows(too_few, 5), rows(too_few, 5))
    assert loss(rows(too_few + 1, 5), rows(too_few + 1, 5, seed=1)).isfinite().all()


@every_loss
def test_duplicates_among_the_students_rows_give_finite_gradients(loss: Callable[..., Tensor]) -> None:
    student = rows(6, 5)
    student[1] = student[0]
    student = student.float().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student, rows(6, 5, seed=1).float()).sum(), student)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle"])
def test_a_student_that_gives_every_row_the_same_is_no_reason_to_stop(name: str) -> None:
    student = torch.ones(6, 5, requires_grad=True)
    value = LOSSES[name](student, rows(6, 5).float())
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_opposite_rows_have_a_finite_neighbourhood() -> None:
    student = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]], requires_grad=True)
    value = relation.pkt(student, torch.eye(3))
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_the_kernel_tends_to_the_gaussian_of_the_distance() -> None:
    student, teacher = rows(6, 5), rows(6, 8, seed=1)
    gaussians = [(-0.4 * torch.cdist(unit(x), unit(x)).square()).exp() for x in (student, teacher)]
    expected = (gaussians[0] - gaussians[1]).square().mean(dim=1)
    for order in (20, None):
        value = relation.correlation_congruence(student, teacher, order=order)
        torch.testing.assert_close(value, expected)
    assert not torch.allclose(relation.correlation_congruence(student, teacher), expected, rtol=1e-3)


def test_a_row_is_no_neighbour_of_itself() -> None:
    student, teacher = rows(5, 3), rows(5, 3, seed=1)
    similar = [(unit(x) @ unit(x).T / 0.1).fill_diagonal_(-torch.inf).softmax(-1) for x in (student, teacher)]
    expected = torch.special.xlogy(similar[1], similar[1]) - torch.special.xlogy(similar[1], similar[0])
    torch.testing.assert_close(relation.similarity_kl(student, teacher, temperature=0.1), expected.sum(dim=1))


def test_alignment_is_the_same_by_either_product() -> None:
    """64 rows of width 5 take one, the same rows beside 100 columns of zeros the other."""
    student, teacher = rows(64, 5), rows(64, 8, seed=1)
    wide = F.pad(student, (0, 100))
    torch.testing.assert_close(relation.linear_cka(student, teacher), relation.linear_cka(wide, teacher))
    assert 0.0 < relation.linear_cka(student, teacher).item() < 0.3
    assert relation.linear_cka(student, student @ rotation(5)).item() == pytest.approx(1.0)


def test_distances_of_near_neighbours_survive_float32() -> None:
    base = 1000.0 + torch.zeros(2, 3)
    base[1, 0] += 0.01
    exact = (base[1, 0] - base[0, 0]).item()
    assert distances(base).flatten().tolist() == pytest.approx([exact, exact], rel=1e-6)


def test_the_diagonal_alone_is_dropped() -> None:
    pairs = torch.arange(9).view(3, 3)
    assert off_diagonal(pairs).tolist() == [[1, 2], [3, 5], [6, 7]]
    assert off_diagonal(torch.zeros(1, 1)).shape == (1, 0)
