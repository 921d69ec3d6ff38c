from __future__ import annotations

import pytest
import torch
from torch import nn

from potstill.losses.projection import projection, without_width

SHAPES = {"positions": (6, 5), "image tokens": (2, 3, 5), "feature maps": (2, 5, 4, 4)}
WIDER = {"positions": (6, 8), "image tokens": (2, 3, 8), "feature maps": (2, 8, 4, 4)}


@pytest.mark.parametrize("kind", SHAPES)
def test_the_width_is_found_wherever_it_stands(kind: str) -> None:
    student, teacher = torch.randn(SHAPES[kind]), torch.randn(WIDER[kind])
    assert without_width(student) == without_width(teacher)
    assert projection(student, teacher)(student).shape == teacher.shape


@pytest.mark.parametrize("kind", SHAPES)
def test_equal_widths_start_at_distance_zero(kind: str) -> None:
    student = torch.randn(SHAPES[kind])
    torch.testing.assert_close(projection(student, student)(student), student)


def test_different_widths_do_not_start_as_a_cut_of_the_identity() -> None:
    layer = projection(torch.randn(6, 5), torch.randn(6, 8))
    assert isinstance(layer, nn.Linear)
    assert layer.weight[5:].abs().min() > 0.0


def test_half_precision_students_get_a_projector_that_can_learn() -> None:
    student = torch.randn(6, 5, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in projection(student, student).parameters()} == {torch.float32}
