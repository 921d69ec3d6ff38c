"""What was not finite in a step, and where it came from: looked for once there is something to find."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from potstill.data.batch import Batch
from potstill.distributed import first_of_ranks, rank
from potstill.objective import Objective, Step
from potstill.optimisation import own_part
from potstill.randomness import seed_step

if TYPE_CHECKING:
    from potstill.module import DistillationModule


def loss_fault(objective: Objective, step: Step, piece: Batch) -> str:
    fault = objective.find_fault(step) or "the weighted sum of the terms overflows"
    return f"{fault}, in the micro-batch of examples {some(piece.keys)}"


def gradient_fault(module: DistillationModule) -> str:
    """Of the step that `module` has taken. The same text on every rank, though each sees its own part only."""
    names = first_of_ranks(", ".join(_not_finite(module)) or None) or "its norm overflows"
    return f"the gradient is not finite: {names}{first_of_ranks(_origin(module)) or ''}"


def _origin(module: DistillationModule) -> str | None:
    """The term, and the micro-batch of this rank, that a gradient which is not finite comes from: each taken alone.

    Not looked for where parameters are sharded: their gradients exist only in the strategy's own backward.
    """
    if module._device_mesh is not None:
        return None
    taken = module.taken
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    seed_step(module.seed, taken.number, rank())
    for piece in taken.pieces:
        for name, share in module.objective.shares(module.step_of(piece), taken.total_rows).items():
            gradients = torch.autograd.grad(share, parameters, allow_unused=True, retain_graph=True)
            if not all(gradient.isfinite().all() for gradient in gradients if gradient is not None):
                return f"; from loss.term.{name}, in the micro-batch of examples {some(piece.keys)}"
    return None


def some(keys: tuple[str, ...], shown: int = 10) -> str:
    rest = len(keys) - shown
    return ", ".join(keys[:shown]) + (f" and {rest} more" if rest > 0 else "")


def _not_finite(module: nn.Module, shown: int = 3) -> list[str]:
    """Names of the first parameters whose gradient is NaN or infinite."""
    named = ((name, parameter.grad) for name, parameter in module.named_parameters())
    bad = [name for name, gradient in named if gradient is not None and not own_part(gradient).isfinite().all()]
    return bad[:shown] + (["..."] if bad[shown:] else [])
