"""Parameter groups and learning-rate schedules."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler

_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: matrices and embeddings decay, norms and biases do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.dim() > 1]
    kept = [parameter for parameter in trainable if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def schedule_of(optimizer: Optimizer, name: str, *, warmup_fraction: float, num_steps: int) -> LRScheduler:
    """Linear warm-up over a fraction of `num_steps`, then constant, or linear or cosine down to zero."""
    return get_scheduler(
        _SCHEDULES[name],
        optimizer,
        num_warmup_steps=round(warmup_fraction * num_steps),
        num_training_steps=num_steps,
    )
