"""What a term may ask of a teacher, and the one way to ask it."""

# B batch, K texts of an example, N rows, C classes, P attended positions, D width

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from potstill.data.batch import Batch
from potstill.losses.heads import HeadInput
from potstill.losses.sparse import SparseLogits


@dataclass(frozen=True)
class Needs:
    """What the terms of an objective ask of one model. Only that is computed, stored or sent."""

    logits: bool = False
    taps: tuple[str, ...] = ()
    embeddings: bool = False
    head: bool = False  # instead of logits, the rows before the output layer and the layer

    def __bool__(self) -> bool:
        return self.logits or bool(self.taps) or self.embeddings or self.head


@dataclass(frozen=True)
class Opinion:
    """What one of several teachers says. rows: numbers of the batch's rows it was asked about, `[M]`, and its logits on
    these, `[M, C]`. weight: its part in the mean; the weights of all sum to 1.
    """

    logits: Tensor
    rows: Tensor
    weight: float


@dataclass
class Signal:
    """A teacher's answer to one batch.

    logits: `[N, C]`, one row per scored position, columns in the order of the data's labels or vocabulary; None where
        no term needs them, and where the losses to several teachers are averaged instead.
    hidden: by module path, `[P, D]` (text: attended positions) or `[B, ...]` (images).
    embeddings: `[B, K, D]`, one vector per text.
    members: by name, what each of several teachers says.
    sparse: instead of logits, of a teacher of which only some classes were stored.
    head: instead of `logits`, the rows that they would be made of.
    """

    logits: Tensor | None = None
    hidden: dict[str, Tensor] = field(default_factory=dict)
    embeddings: Tensor | None = None
    members: dict[str, Opinion] = field(default_factory=dict)
    sparse: SparseLogits | None = None
    head: HeadInput | None = None


class SignalSource(Protocol):
    """Where a teacher's signal comes from. model: the one that runs on this device, if there is one.

    One that has `gives_head`, and has it true, answers `Needs.head` as well: by `Signal.head`, or by what else it has
    instead of logits.
    """

    @property
    def model(self) -> nn.Module | None: ...

    def signal(self, batch: Batch, needs: Needs) -> Signal: ...

    def to(self, device: torch.device) -> SignalSource: ...
