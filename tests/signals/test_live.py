"""A live teacher: frozen, in eval mode and in its own dtype, its columns in the data's order."""

from __future__ import annotations

import torch

from potstill.models.task import TASKS
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, SignalSource

from .tiny import TAP, classifier, language_model, scored, unlabelled

TEXT = TASKS["text_classification"]
BATCH = unlabelled([5, 6, 7], [8, 9])
LOGITS = Needs(logits=True)


def live_teacher(label_order: list[int] | None = None) -> LiveTeacher:
    return LiveTeacher(classifier(), TEXT, label_order)


def test_it_is_a_source_of_signals_and_no_module():
    source: SignalSource = live_teacher()
    assert not isinstance(source, torch.nn.Module)


def test_columns_are_put_into_the_order_of_the_data():
    plain, ordered = (live_teacher(order).signal(BATCH, LOGITS).logits for order in (None, [2, 0, 1]))
    assert plain is not None
    torch.testing.assert_close(ordered, plain[:, [2, 0, 1]])


def test_dropout_stays_off_when_someone_switches_the_model_to_training():
    teacher = live_teacher()
    first = teacher.signal(BATCH, LOGITS).logits
    teacher.model.train()
    torch.testing.assert_close(teacher.signal(BATCH, LOGITS).logits, first, rtol=0, atol=0)


def test_the_autocast_of_the_student_does_not_change_the_teacher():
    teacher = live_teacher()
    plain = teacher.signal(BATCH, LOGITS).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = teacher.signal(BATCH, LOGITS).logits
    torch.testing.assert_close(cast, plain, rtol=0, atol=0)


def test_a_student_can_backpropagate_beside_the_signal_and_the_teacher_gets_no_gradient():
    teacher = live_teacher()
    signal = teacher.signal(BATCH, Needs(logits=True, taps=(TAP,)))
    assert signal.logits is not None
    student = torch.ones_like(signal.logits, requires_grad=True)
    ((student * signal.logits).sum() + signal.hidden[TAP].sum()).backward()
    torch.testing.assert_close(student.grad, signal.logits)
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_what_is_not_needed_is_not_given():
    teacher = live_teacher()
    assert teacher.signal(BATCH, Needs(taps=(TAP,))).logits is None
    assert teacher.signal(BATCH, LOGITS).hidden == {}


def test_a_loss_without_a_teacher_runs_none():
    teacher, calls = live_teacher(), []
    teacher.model.register_forward_hook(lambda *_: calls.append(1))
    teacher.signal(BATCH, Needs())
    assert calls == []


def test_a_language_model_answers_for_scored_rows_only():
    teacher = LiveTeacher(language_model(), TASKS["causal_lm"], None)
    logits = teacher.signal(scored([5, 6, 7], [8, 9]), LOGITS).logits
    assert logits is not None
    assert logits.shape == (3, 50)
