from __future__ import annotations

import pytest
import torch
from torch import nn

from potstill.losses.projection import PROJECTORS, projection, width_last, without_width

SHAPES = {"positions": (6, 5), "image tokens": (2, 3, 5), "feature maps": (2, 5, 4, 4)}
WIDER = {"positions": (6, 8), "image tokens": (2, 3, 8), "feature maps": (2, 8, 4, 4)}


@pytest.mark.parametrize("kind", SHAPES)
def test_the_width_is_found_wherever_it_stands(kind: str) -> None:
    student, teacher = torch.randn(SHAPES[kind]), torch.randn(WIDER[kind])
    assert without_width(student) == without_width(teacher)
    assert width_last(student).shape[-1] == 5
    for projector in PROJECTORS:
        if projector != "none" and (projector, kind) != ("orthogonal", "feature maps"):
            assert projection(student, teacher, kind=projector)(student).shape == teacher.shape


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


def test_an_orthogonal_map_keeps_lengths_and_angles_while_it_learns() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 5), torch.randn(6, 8)
    layer = projection(student, teacher, kind="orthogonal")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    before = layer(student).detach()
    for _ in range(5):
        optimizer.zero_grad()
        (layer(student) - teacher).square().mean().backward()
        optimizer.step()
    after = layer(student).detach()
    assert (after - before).norm() > 0.5, "it learns"
    torch.testing.assert_close(after @ after.T, student @ student.T, rtol=1e-4, atol=1e-4)


def test_an_orthogonal_map_of_equal_widths_starts_as_the_identity() -> None:
    student = torch.randn(6, 5)
    torch.testing.assert_close(projection(student, student, kind="orthogonal")(student), student)


def test_only_an_mlp_can_map_what_no_line_can() -> None:
    torch.manual_seed(0)
    student = torch.tensor([[-1.0], [0.0], [1.0]])
    teacher = student.square().repeat(1, 8)
    left = {}
    for kind in ("linear", "mlp"):
        layer = projection(student, teacher, kind=kind)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        for _ in range(200):
            loss = (layer(student) - teacher).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        left[kind] = loss.item()
    assert left["mlp"] < 1e-3
    assert left["linear"] > 0.1
