"""Noticing that a step was not finite without waiting, at every step, for the accelerator that computes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from potstill.data.batch import Batch
from potstill.distributed import max_in_place

MOST_UNREAD = 20  # steps whose batches are kept, on the host, until the note is read


@dataclass(frozen=True)
class Taken:
    """One step: how many were before it, its micro-batches, and the counts its terms are divided by."""

    number: int
    pieces: list[Batch]
    total_rows: dict[str, int]

    def to(self, device: torch.device) -> Taken:
        return replace(self, pieces=[piece.to(device) for piece in self.pieces])

    @property
    def on_host(self) -> Taken:
        return replace(self, pieces=[piece.on_host for piece in self.pieces])


class Note:
    """Whether all steps were finite, kept where losses and gradients are.

    From the first step on that was not, it holds the optimizer back (`found_inf`, which a fused one reads by itself):
    no weight moves any more, and the step can be computed again on the weights it had.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        self.is_bad, self.num_good = torch.zeros((), device=device), torch.zeros((), device=device)
        self.unread: list[Taken] = []
        optimizer.found_inf = self.is_bad  # type: ignore[attr-defined]

    @staticmethod
    def holds_back(optimizer: Optimizer) -> bool:
        """Whether an optimizer reads `found_inf`."""
        return getattr(optimizer, "_step_supports_amp_scaling", False)

    def add(self, value: Tensor) -> None:
        """A loss or a norm of this rank."""
        self.is_bad.copy_(torch.maximum(self.is_bad, (~value.detach().isfinite()).float()))

    def agree(self) -> None:
        """What any rank has seen holds back all."""
        max_in_place(self.is_bad)

    def end_step(self, step: Taken) -> None:
        self.num_good += 1 - self.is_bad
        self.unread.append(step.on_host)

    def read(self) -> Taken | None:
        """The first step that was not finite. Waits for the device."""
        if self.is_bad.item():
            return self.unread[int(self.num_good.item())]
        self.num_good.zero_()
        self.unread.clear()
        return None
