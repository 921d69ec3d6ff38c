"""Reference values: the formulas in float64, which agree with the public implementations named in docs/losses.md."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from potstill.losses import divergence, response
from potstill.losses.hidden import hidden_mse
from potstill.losses.reduce import mean_over
from potstill.losses.response import cross_entropy
from potstill.losses.sparse import TopkMode, sparse_forward_kl


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
        (divergence.tvd, {}, 0.5020250532),
        (divergence.skew_forward_kl, {"skew": 0.1}, 0.5947854081),
        (divergence.skew_reverse_kl, {"skew": 0.1}, 0.5747889229),
    ],
)
def test_divergences_have_their_reference_values(
    divergence_of: Callable[..., Tensor], options: dict[str, float], expected: float
) -> None:
    assert mean(divergence_of(STUDENT, TEACHER, **options)) == pytest.approx(expected, abs=1e-6)


def test_logit_standardisation_has_its_reference_value() -> None:
    student, teacher = response.standardise_logits(STUDENT), response.standardise_logits(TEACHER)
    assert mean(divergence.forward_kl(student, teacher, temperature=2.0)) == pytest.approx(0.7078929611, abs=1e-6)


def test_dkd_and_its_parts_have_their_reference_values() -> None:
    parts = response.dkd_parts(STUDENT, TEACHER, LABELS, temperature=4.0)
    assert [16.0 * mean(part) for part in parts] == pytest.approx([0.1701160034, 1.1181730855], abs=1e-6)
    values = response.dkd(STUDENT, TEACHER, LABELS, target_weight=1.0, non_target_weight=8.0, temperature=4.0)
    assert mean(values) == pytest.approx(9.1155006871, abs=1e-6)


def test_dist_has_its_reference_value() -> None:
    values = mean(response.dist_inter(STUDENT, TEACHER)) + mean(response.dist_intra(STUDENT, TEACHER))
    assert values == pytest.approx(1.8822678299, abs=1e-6)


@pytest.mark.parametrize(
    ("temperature", "topk_mode", "expected"),
    [(1.0, "tail", 0.5520087462), (2.0, "tail", 0.1328979705), (1.0, "renormalise_both", 0.1580740103)],
)
def test_sparse_forward_kl_has_its_reference_value(temperature: float, topk_mode: TopkMode, expected: float) -> None:
    stored = TEACHER.log_softmax(dim=-1)
    top = stored.topk(3, dim=-1)
    normaliser = (stored / temperature).logsumexp(dim=-1)
    values, _ = sparse_forward_kl(
        *(STUDENT, top.values, top.indices),
        temperature=temperature,
        topk_mode=topk_mode,
        t2_scaling=False,
        log_normaliser_N=normaliser,
    )
    assert mean(values) == pytest.approx(expected, abs=1e-6)


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
