from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from potstill.losses.ranking import hinge_ranking, list_mle

TEACHER = torch.tensor([[3.0, 0.0, 1.0, 2.0], [0.0, 5.0, 4.0, -1.0]], dtype=torch.float64)
STUDENT = torch.tensor([[1.0, 0.5, 1.5, 0.0], [0.0, 1.0, 3.0, 2.0]], dtype=torch.float64)


def hinge_by_hand(student: Tensor, teacher: Tensor, margin: float, top_k: int) -> list[float]:
    values = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        first = sorted(range(len(t)), key=lambda c: -t[c])[:top_k]
        pairs = list(itertools.combinations(first, 2))
        values.append(sum(max(0.0, min(t[a] - t[b], margin) - (s[a] - s[b])) for a, b in pairs) / len(pairs))
    return values


@pytest.mark.parametrize("margin", [None, 0.5])
@pytest.mark.parametrize("top_k", [None, 2, 3])
def test_hinge_ranking_is_the_mean_over_the_pairs_of_the_teachers_first_classes(
    margin: float | None, top_k: int | None
) -> None:
    expected = hinge_by_hand(STUDENT, TEACHER, margin or float("inf"), top_k or 4)
    assert hinge_ranking(STUDENT, TEACHER, margin=margin, top_k=top_k).tolist() == pytest.approx(expected)


def test_a_student_with_the_teachers_order_and_wider_gaps_is_left_alone() -> None:
    student = (2.0 * TEACHER).requires_grad_()
    values = hinge_ranking(student, TEACHER)
    values.sum().backward()
    assert values.tolist() == [0.0, 0.0]
    assert student.grad is not None
    assert student.grad.abs().max() == 0.0


def test_the_order_of_classes_that_the_teacher_ties_is_free() -> None:
    assert hinge_ranking(STUDENT, torch.zeros_like(TEACHER)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("top_k", [1, 2, None])
def test_list_mle_draws_each_place_from_the_classes_that_are_left(top_k: int | None) -> None:
    order = [0, 3, 2, 1]  # the teacher's, of the first row
    places = [-STUDENT[0, order[place:]].log_softmax(-1)[0].item() for place in range(4)][:top_k]
    value = list_mle(STUDENT[:1], TEACHER[:1], top_k=top_k).item()
    assert value == pytest.approx(sum(places) / len(places))


def test_the_probabilities_of_all_orders_add_up_to_one() -> None:
    orders = torch.tensor(list(itertools.permutations([3.0, 2.0, 1.0, 0.0])), dtype=torch.float64)
    values = list_mle(STUDENT[:1].expand(24, 4), orders)
    assert (-4.0 * values).exp().sum().item() == pytest.approx(1.0)
