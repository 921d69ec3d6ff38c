"""Reference values: the formulas in float64, which agree with the public implementations named in docs/losses.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from potstill.losses import divergence
from potstill.losses.hidden import hidden_mse
from potstill.losses.reduce import mean_over
from potstill.losses.response import cross_entropy


def grid(shape: tuple[int, ...], start: float, step: float, scale: float, wave: Callable[[Tensor], Tensor]) -> Tensor:
    """scale * wave(start + step * k), k = 0 .. numel - 1 in row-major order: inputs that need no random generator."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (scale * wave(start + step * index)).reshape(shape)


STUDENT = grid((4, 10), 1.0, 0.7, 2, torch.sin)
TEACHER = grid((4, 10), 2.0, 0.3, 3, torch.cos)
LABELS = torch.tensor([0, 3, 7, 2])
STUDENT_HIDDEN = grid((2, 5, 6), 0.3, 0.6, 1, torch.sin)
TEACHER_HIDDEN = grid((2, 5, 6), 1.1, 0.45, 1.3, torch.cos)
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], dtype=torch.bool)


def mean(values: Tensor) -> float:
    return mean_over(values, len(values)).item()


@pytest.mark.parametrize(
    ("divergence_of", "options", "expected"),
    [
        (divergence.forward_kl, {"temperature": 1.0}, 0.8953164032),
        (divergence.forward_kl, {"temperature": 2.0, "t2_scaling": False}, 0.2702841120),
        (divergence.forward_kl, {"temperature": 2.0}, 1.0811364479),
        (divergence.forward_kl, {"temperature": 4.0}, 1.1645865978),
        (divergence.reverse_kl, {"temperature": 1.0}, 0.7856205476),
        (divergence.forward_ce, {"temperature": 1.0}, 2.8623950847),
        (divergence.forward_ce, {"temperature": 4.0, "t2_scaling": False}, 2.3508404413),
        (divergence.jsd, {"beta": 0.1}, 0.0715646552),
        (divergence.jsd, {"beta": 0.5}, 0.1750424142),
        (divergence.jsd, {"beta": 0.9}, 0.0666830606),
        (divergence.jsd, {"beta": 0.0}, 0.8953164032),
        (divergence.jsd, {"beta": 1.0}, 0.7856205476),
    ],
)
def test_divergences_have_their_reference_values(
    divergence_of: Callable[..., Tensor], options: dict[str, float], expected: float
) -> None:
    assert mean(divergence_of(STUDENT, TEACHER, **options)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, 1.9670786815), (4.0, 2.2780537789)])
def test_entropy_has_its_reference_value(temperature: float, expected: float) -> None:
    assert mean(divergence.entropy(TEACHER, temperature=temperature)) == pytest.approx(expected, abs=1e-6)


def test_cross_entropy_has_its_reference_value() -> None:
    assert mean(cross_entropy(STUDENT, LABELS)) == pytest.approx(3.1605665540, abs=1e-6)


def test_hidden_mse_has_its_reference_value_with_and_without_padding() -> None:
    attended = hidden_mse(STUDENT_HIDDEN[MASK], TEACHER_HIDDEN[MASK])
    everything = hidden_mse(STUDENT_HIDDEN.flatten(0, 1), TEACHER_HIDDEN.flatten(0, 1))
    assert mean(attended) == pytest.approx(1.3955320197, abs=1e-6)
    assert mean(everything) == pytest.approx(1.1812459351, abs=1e-6)
