from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from potstill.losses.hidden import hidden_mse


def test_a_row_is_averaged_over_its_width() -> None:
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    expected = torch.stack([F.mse_loss(mine, theirs) for mine, theirs in zip(student, teacher, strict=True)])
    torch.testing.assert_close(hidden_mse(student, teacher), expected)


def test_an_image_is_one_row() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    values = hidden_mse(student, teacher)
    assert values.shape == (2,)
    assert values.mean().item() == pytest.approx(F.mse_loss(student, teacher).item())


def test_widths_that_differ_are_not_broadcast() -> None:
    with pytest.raises(AssertionError):
        hidden_mse(torch.randn(6, 1), torch.randn(6, 5))


def test_half_precision_states_are_compared_in_float32() -> None:
    student, teacher = torch.full((1, 4), 300.0).half(), torch.zeros(1, 4).half()  # 300^2 is not a float16
    assert hidden_mse(student, teacher).item() == 90000.0
