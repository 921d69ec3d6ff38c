"""Reference values of feature and relation losses, as the public implementations named in docs/losses.md give them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from potstill.losses import attention, relation
from potstill.losses.hidden import hidden_cosine, patient

from .test_golden import MASK, STUDENT_HIDDEN, TEACHER_HIDDEN, grid, mean

STUDENT_EMBEDDINGS = grid((6, 5), 0.5, 0.9, 1, torch.sin)
TEACHER_EMBEDDINGS = grid((6, 8), 1.5, 0.4, 2, torch.cos)
STUDENT_MAPS = grid((2, 3, 4, 4), 0.2, 0.5, 1, torch.sin)
TEACHER_MAPS = grid((2, 5, 4, 4), 0.8, 0.35, 1.5, torch.cos)
TEACHER_WIDE = grid((2, 5, 12), 1.1, 0.45, 1.3, torch.cos)
STUDENT_SCORES = grid((2, 2, 5, 5), 0.1, 0.8, 1, torch.sin)
TEACHER_SCORES = grid((2, 2, 5, 5), 0.9, 0.55, 1, torch.cos)


def reference(value: float) -> object:
    return pytest.approx(value, abs=1e-6)


def test_hidden_cosine_has_its_reference_value_without_padding() -> None:
    assert mean(hidden_cosine(STUDENT_HIDDEN[MASK], TEACHER_HIDDEN[MASK])) == reference(1.0454465163)


def test_patient_kd_has_its_reference_value_on_first_positions() -> None:
    value = mean(patient(STUDENT_HIDDEN[:, 0], TEACHER_HIDDEN[:, 0]))
    assert value == reference(0.5276474372)
    assert 6 * value == reference(3.1658846232)  # the sum over the width, as TextBrewer has it


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (relation.rkd_distance, 0.2923912586),
        (relation.rkd_angle, 0.1748238581),
        (relation.similarity_preserving, 0.3131732575),
        (relation.pkt, 0.2409402780),
    ],
)
def test_relations_have_their_reference_values(loss: Callable[..., Tensor], expected: float) -> None:
    assert mean(loss(STUDENT_EMBEDDINGS, TEACHER_EMBEDDINGS)) == reference(expected)


def test_linear_cka_has_its_reference_value() -> None:
    assert relation.linear_cka(STUDENT_EMBEDDINGS, TEACHER_EMBEDDINGS).item() == reference(0.0660165217)


def test_attention_transfer_has_its_reference_value() -> None:
    student, teacher = (maps.flatten(2).transpose(1, 2) for maps in (STUDENT_MAPS, TEACHER_MAPS))
    values = attention.attention_transfer(student, teacher)
    assert mean(values) == reference(0.0033765970)
    assert mean((16 * values).sqrt()) == reference(0.2323115337)  # the paper's un-squared form


def test_attention_scores_have_their_reference_value_with_and_without_padding() -> None:
    assert mean(attention.attention_score_mse(STUDENT_SCORES, TEACHER_SCORES, MASK)) == reference(0.8666694287)
    everything = torch.ones_like(MASK)
    assert mean(attention.attention_score_mse(STUDENT_SCORES, TEACHER_SCORES, everything)) == reference(0.9665286933)


@pytest.mark.parametrize(("num_heads", "expected"), [(2, 0.4449668397), (3, 0.4259199522)])
def test_relations_of_positions_have_their_reference_values(num_heads: int, expected: float) -> None:
    value = mean(attention.relation_kl(STUDENT_HIDDEN, TEACHER_WIDE, MASK, num_heads=num_heads))
    assert value == reference(expected)
