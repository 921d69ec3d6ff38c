"""How much each term pulls at the student: the norm of its own gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from potstill.distributed import add_in_place


class TermGradients:
    """The gradient of each weighted term in the student's parameters, over all micro-batches and ranks of one step.

    It takes a backward pass a term beside the step's own, and memory for a gradient a term. Not for sharded parameters:
    their gradients exist only in the strategy's own backward.
    """

    def __init__(self, student: nn.Module) -> None:
        self.parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
        self.sums: dict[str, list[Tensor]] = {}

    def add(self, name: str, share: Tensor) -> None:
        """Add a micro-batch's share of the weighted term; its graph is kept for the backward pass that follows."""
        found = torch.autograd.grad(
            share, self.parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        if name not in self.sums:
            self.sums[name] = list(found)
            return
        for total, gradient in zip(self.sums[name], found, strict=True):
            total += gradient

    def norms(self) -> dict[str, Tensor]:
        """By name, over the whole global batch. Once, when all shares are in: every rank calls it."""
        add_in_place([gradient for gradients in self.sums.values() for gradient in gradients])
        return {name: get_total_norm(gradients) for name, gradients in self.sums.items()}
