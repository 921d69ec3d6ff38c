"""The gradient of a step through the trainer: what cuts, padding and a wrong division do to it, for every term."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from potstill.data.batch import Batch
from potstill.models.task import TASKS
from potstill.module import DistillationModule
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, Signal
from tests.losses.registry import TEACHER_LOGIT_TERMS, TEACHER_TERMS, TERM_NAMES

from .distil import MODELS, batch, distillation, model, one_step, relative_difference, twin

TOLERANCE = 1e-5  # float32
CUTS: dict[str, tuple[int | None, int | None]] = {
    "4x4": (4, None),
    "16x1": (1, None),
    "5 5 5 1": (5, None),
    "40 tokens": (None, 40),
    "3 examples, 20 tokens": (3, 20),
}
PADDINGS = [{"left": 3}, {"right": 4}, {"left": 2, "right": 5}]
TEXT_TASKS = [task for task in MODELS if TASKS[task].is_text]

every_task = pytest.mark.parametrize("task", MODELS)
every_term = pytest.mark.parametrize("term", TERM_NAMES)


class AverageOfAverages(DistillationModule):
    """The usual mistake: each micro-batch divides by its own rows, and their number divides the sum."""

    num_pieces = 1

    def _backward(self, piece: Batch, total_rows: dict[str, int]) -> dict[str, Any]:  # noqa: ARG002
        own = self.task.count_rows(piece)
        return super()._backward(piece, {kind: max(rows, 1) * self.num_pieces for kind, rows in own.items()})


class NextExamples:
    """A teacher that answers every example with what it knows about the next."""

    def __init__(self, source: LiveTeacher) -> None:
        self.source = source

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        signal = self.source.signal(batch, needs)
        hidden = {path: value.roll(1, dims=0) for path, value in signal.hidden.items()}
        return Signal(None if signal.logits is None else signal.logits.roll(1, dims=0), hidden)

    def to(self, device: torch.device) -> NextExamples:
        self.source.to(device)
        return self


def cut_into(module: DistillationModule, limits: tuple[int | None, int | None]) -> DistillationModule:
    module.max_examples, module.max_tokens = limits
    return module


@every_task
@every_term
def test_cutting_moves_neither_gradient_nor_metric(task: str, term: str) -> None:
    module = distillation(task, term)
    expected, expected_metrics = one_step(module, batch(task))
    for name, limits in CUTS.items():
        found, metrics = one_step(cut_into(module, limits), batch(task))
        assert relative_difference(found, expected) <= TOLERANCE, name
        assert metrics == pytest.approx(expected_metrics, rel=1e-4, abs=1e-6), name


@every_task
@every_term
def test_the_comparison_finds_an_average_of_averages(task: str, term: str) -> None:
    expected, _ = one_step(distillation(task, term), batch(task))
    wrong = distillation(task, term, kind=AverageOfAverages)
    assert relative_difference(one_step(wrong, batch(task))[0], expected) <= TOLERANCE, "alike until the batch is cut"
    wrong.num_pieces = 4
    found, _ = one_step(cut_into(wrong, CUTS["5 5 5 1"]), batch(task))
    assert relative_difference(found, expected) > 1000 * TOLERANCE


@pytest.mark.parametrize("task", TEXT_TASKS)
@every_term
def test_padding_moves_no_gradient(task: str, term: str) -> None:
    module = distillation(task, term)
    expected, _ = one_step(module, batch(task))
    for padding in PADDINGS:
        for limits in ((None, None), CUTS["40 tokens"]):
            found, _ = one_step(cut_into(module, limits), batch(task, **padding))
            assert relative_difference(found, expected) <= TOLERANCE, (padding, limits)


@every_task
@pytest.mark.parametrize("term", TEACHER_LOGIT_TERMS)
@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(task: str, term: str, temperature: float) -> None:
    teacher = model(task)
    module = distillation(
        task, term, student=twin(teacher), teacher=teacher, term_options={"temperature": temperature}, max_examples=5
    )
    gradients, metrics = one_step(module, batch(task))
    assert metrics["train/loss"] == pytest.approx(0.0, abs=2e-6)
    assert metrics["train/agreement"] == pytest.approx(1.0)
    assert max(float(value.abs().max()) for value in gradients.values()) <= 1e-6


@every_task
@pytest.mark.parametrize("term", TEACHER_TERMS)
def test_a_teacher_that_answers_for_other_examples_raises_the_loss(task: str, term: str) -> None:
    teacher = model(task)
    student = twin(teacher)
    _, metrics = one_step(distillation(task, term, student=student, teacher=teacher), batch(task))
    shuffled = NextExamples(LiveTeacher(teacher, TASKS[task], None))
    _, others = one_step(distillation(task, term, student=student, teacher=shuffled), batch(task))
    assert others["train/loss"] > metrics["train/loss"] + 1e-3
