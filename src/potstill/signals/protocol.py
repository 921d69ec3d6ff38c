"""What a term may ask of a teacher, and the one way to ask it."""

# N rows, C classes, P attended positions, D width

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from potstill.data.batch import Batch


@dataclass(frozen=True)
class Needs:
    """What the terms of an objective ask of one model. Only that is computed, stored or sent."""

    logits: bool = False
    taps: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.logits or bool(self.taps)


@dataclass
class Signal:
    """A teacher's answer to one batch.

    logits: `[N, C]`, one row per scored position, columns in the order of the data's labels or vocabulary.
    hidden: by module path, `[P, D]` (text: attended positions) or `[B, ...]` (images).
    """

    logits: Tensor | None = None
    hidden: dict[str, Tensor] = field(default_factory=dict)


class SignalSource(Protocol):
    def signal(self, batch: Batch, needs: Needs) -> Signal: ...

    def to(self, device: torch.device) -> SignalSource: ...
