"""Checks that wait for nobody: the bad step is found all the same, and nothing has moved since."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from potstill.data.batch import Batch
from potstill.errors import DivergedError
from potstill.models.task import TASKS
from potstill.signals.live import LiveTeacher
from potstill.tracking.checkpoints import LastCheckpoint
from tests.integration.distil import batch, distillation, fit, model
from tests.test_module import Spoilt

TASK, BAD = "image_classification", 5  # the example
FUSED = functools.partial(torch.optim.AdamW, lr=0.01, fused=True)


def deferring(**options: Any) -> Any:
    return distillation(TASK, "ce", "kd", make_optimizer=FUSED, max_examples=4, defers_checks=True, **options)


def batches(number: int, bad: int | None) -> list[Batch]:
    """bad: the number of the batch with an example that no model makes anything finite of."""
    made = [batch(TASK) for _ in range(number)]
    if bad is not None:
        pixels = made[bad].inputs["pixel_values"].clone()
        pixels[BAD] = math.nan
        made[bad] = replace(made[bad], inputs={"pixel_values": pixels})
    return made


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [value.detach().clone() for value in module.parameters()]


def test_steps_after_a_loss_that_is_not_finite_move_nothing_and_its_step_term_and_rows_are_told() -> None:
    module, good = deferring(), deferring()
    fit(good, batches(2, None), log_every_n_steps=50)
    message = r"After 2 optimizer steps loss\.term\.kd is not finite: rows 1, in the micro-batch"
    with pytest.raises(DivergedError, match=message) as caught:
        fit(module, batches(7, bad=2), log_every_n_steps=5)
    keys = batch(TASK).keys
    assert all(key in str(caught.value) for key in keys[4:8])
    assert not any(key in str(caught.value) for key in keys[8:])
    assert all(torch.equal(one, other) for one, other in zip(weights(module), weights(good), strict=True))
    assert caught.value.is_late


def test_a_gradient_that_is_not_finite_is_told_by_its_parameter_and_its_term() -> None:
    module = deferring()
    spoil = module.student.classifier.weight.register_hook
    spoil(lambda gradient: gradient * math.nan if module.global_step >= 3 else gradient)
    with pytest.raises(DivergedError, match=r"After 3 .* not finite: student\.classifier\.weight; from loss\.term\.ce"):
        fit(module, batches(6, None), log_every_n_steps=50)


def test_a_late_fault_leaves_the_last_good_checkpoint(tmp_path: Path) -> None:
    last = LastCheckpoint(str(tmp_path), every_steps=2)
    with pytest.raises(DivergedError, match="After 3 optimizer steps"):
        fit(deferring(), batches(6, bad=3), log_every_n_steps=50, callbacks=[last], enable_checkpointing=True)
    assert torch.load(last.path, weights_only=True)["global_step"] == 2


def test_a_fault_that_does_not_come_again_is_blamed_on_nothing() -> None:
    # prepared with two calls; second step, piece two
    teacher = Spoilt(LiveTeacher(model(TASK), TASKS[TASK], None), call=2 + 4 + 2)
    with pytest.raises(DivergedError, match="After 1 optimizer steps a loss or gradient was not finite, and is now"):
        fit(deferring(teacher=teacher), batches(4, None), log_every_n_steps=50)


def test_training_without_a_fault_is_the_same_whenever_it_is_looked_for() -> None:
    late, at_once = deferring(), deferring()
    at_once.defers_checks = False
    for module in (late, at_once):
        fit(module, batches(5, None), log_every_n_steps=2)
    assert late.note is not None
    assert at_once.note is None
    assert all(torch.equal(one, other) for one, other in zip(weights(late), weights(at_once), strict=True))


def test_an_optimizer_that_cannot_be_held_back_is_looked_at_every_step() -> None:
    module = distillation(TASK, "kd", defers_checks=True)
    with pytest.raises(DivergedError, match="After 0 optimizer steps") as caught:
        fit(module, batches(4, bad=0), log_every_n_steps=50)
    assert not caught.value.is_late
