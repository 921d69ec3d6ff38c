"""Parameter groups, gradient norms and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

_SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: matrices and embeddings decay, norms and biases do not."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trainable if parameter.dim() > 1]
    kept = [parameter for parameter in trainable if parameter.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def schedule_of(optimizer: Optimizer, name: str, *, warmup_fraction: float, num_steps: int) -> LambdaLR:
    """Linear warm-up over a fraction of `num_steps`, then constant, or linear or cosine down to zero."""
    schedule = get_scheduler(
        _SCHEDULES[name],
        optimizer,
        num_warmup_steps=round(warmup_fraction * num_steps),
        num_training_steps=num_steps,
    )
    assert isinstance(schedule, LambdaLR)
    return schedule


def options_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The options of each parameter group: learning rate, betas, decay."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def set_options(optimizer: Optimizer, schedule: LambdaLR, options: list[dict[str, Any]]) -> None:
    """Give an optimizer and its schedule these options, and the rate that belongs to the step they have reached.

    Loading a state brings back the options it was saved with, those of another config where the user changed it.
    """
    schedule.base_lrs = [each["initial_lr"] for each in options]
    factors = (factor(schedule.last_epoch) for factor in schedule.lr_lambdas)
    for group, own, factor in zip(optimizer.param_groups, options, factors, strict=True):
        group |= {**own, "lr": own["initial_lr"] * factor}


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def clip_grad_norm(parameters: Iterable[nn.Parameter], max_norm: float | None) -> Tensor:
    """Scale the gradients down to `max_norm` (None: leave them); returns the norm they had, over all shards.

    A norm that is not finite scales nothing: it would make NaN of every gradient, and hide whose fault it is.
    """
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    norm = get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    if max_norm is not None:  # of a norm of 0 nothing is scaled: chosen on the device, which nobody waits for
        clip_grads_with_norm_(trained, max_norm, torch.where(norm.isfinite(), norm, 0.0))
    return norm


def own_part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
