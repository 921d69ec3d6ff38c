from __future__ import annotations

import math

import pytest
import torch

from potstill.diagnostics import diagnose
from potstill.objective import Step
from tests.losses.registry import make_step, select


def step_of(student: list[list[float]] | None, teacher: list[list[float]] | None) -> Step:
    """Logits are logarithms of the given probabilities."""
    student_NC, teacher_NC = (None if rows is None else torch.tensor(rows).log() for rows in (student, teacher))
    return Step(student_NC, teacher_NC, torch.zeros(2, dtype=torch.long))


def test_entropy_divergence_and_agreement_are_means_over_rows() -> None:
    found = diagnose(step_of([[0.5, 0.5], [0.9, 0.1]], [[0.25, 0.75], [0.9, 0.1]]), {"scored": 2})
    entropies = [-sum(p * math.log(p) for p in row) for row in ([0.25, 0.75], [0.9, 0.1])]
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert found["teacher_entropy"].item() == pytest.approx(sum(entropies) / 2, rel=1e-5)
    assert found["kl"].item() == pytest.approx(divergence / 2, rel=1e-5)
    assert found["agreement"].item() == pytest.approx(0.5)


def test_a_teacher_without_an_opinion_shows_the_largest_entropy() -> None:
    found = diagnose(step_of([[0.3, 0.7]] * 2, [[0.5, 0.5]] * 2), {"scored": 2})
    assert found["teacher_entropy"].item() == pytest.approx(math.log(2))


def test_shares_of_micro_batches_add_up_to_the_means_of_the_batch() -> None:
    step = make_step(num_rows=16)
    whole = diagnose(step, {"scored": 16})
    shares = [diagnose(select(step, rows), {"scored": 16}) for rows in torch.arange(16).split([1, 10, 0, 5])]
    for name, value in whole.items():
        torch.testing.assert_close(sum(share[name] for share in shares), value)


def test_diagnostics_take_no_part_in_the_graph() -> None:
    assert not any(value.requires_grad for value in diagnose(make_step(), {"scored": 16}).values())


@pytest.mark.parametrize(("student", "teacher"), [(None, [[1.0]]), ([[1.0]], None), (None, None)])
def test_without_logits_of_both_models_there_is_nothing_to_say(
    student: list[list[float]] | None, teacher: list[list[float]] | None
) -> None:
    assert diagnose(step_of(student, teacher), {"scored": 2}) == {}


def test_columns_that_mean_other_things_are_not_compared() -> None:
    """Terms on relations take models of different widths; a comparison column by column would stop their training."""
    found = diagnose(step_of([[0.3, 0.7]] * 2, [[0.25, 0.25, 0.5]] * 2), {"scored": 2})
    assert found.keys() == {"teacher_entropy"}
    assert found["teacher_entropy"].item() == pytest.approx(1.5 * math.log(2))
