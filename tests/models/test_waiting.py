"""A step on an accelerator never waits for it: on the meta device, whatever asks a tensor for a number fails."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import masking_utils

from potstill.data.batch import Batch
from potstill.data.microbatch import cut
from potstill.models.packing import set_packing
from potstill.models.task import TASKS
from potstill.optimisation import clip_grad_norm
from tests.integration.distil import MODELS, batch, distillation

PACKED = ("text_classification", "causal_lm")
TERMS = {
    "text_classification": ("ce", "kd", "hidden_mse"),
    "image_classification": ("ce", "kd", "hidden_mse"),
    "causal_lm": ("ce", "kd", "hidden_mse"),
    "embedding": ("embedding_cosine", "hidden_mse"),
}


def elsewhere(module: Any) -> Any:
    """The module and its teacher, moved to a device that computes nothing."""
    module.to("meta")
    module.teacher.to(torch.device("meta"))
    return module


def weighted(task: str) -> Batch:
    made = batch(task, left=1, right=2) if TASKS[task].is_text else batch(task)
    made.weights = None if TASKS[task].is_embedding else torch.linspace(0.5, 1.5, len(made))
    return made


@pytest.fixture(autouse=True)
def as_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has no autocast."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _device: False)


def leave_masks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers asks the mask of a padded batch, once a pass, whether it hides anything."""
    for name in ("_ignore_bidirectional_mask_sdpa", "_ignore_causal_mask_sdpa"):
        monkeypatch.setattr(masking_utils, name, lambda *_, **__: False)


@pytest.mark.parametrize(("task", "packing"), [*((task, "off") for task in MODELS), *((task, "on") for task in PACKED)])
def test_cutting_forward_loss_backward_and_clipping_ask_no_tensor_for_a_number(
    task: str, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if packing == "off":
        leave_masks_alone(monkeypatch)
    module = distillation(task, *TERMS[task])
    if packing == "on":
        for model in (module.student, module.teacher.model):
            set_packing(model, packing, "student")
    module, sent = elsewhere(module), weighted(task).to("meta")
    rows = module.task.count_rows(sent)
    assert rows == module.task.count_rows(weighted(task))
    for piece in [sent] if packing == "on" else cut(sent, 5, 30):  # pieces of one length would not be packed
        loss, _ = module.objective(module.step_of(piece), rows)
        loss.backward()
    assert clip_grad_norm(module.parameters(), 1.0).is_meta
    with pytest.raises(RuntimeError, match="meta"):
        float(loss)
