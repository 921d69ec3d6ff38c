"""The one shape in which data reaches the module: a batch of examples."""

# B examples, L positions

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -100  # label of a position or example that no gold term scores


@dataclass
class Batch:
    """B examples, tokenised and padded.

    inputs: keyword arguments of the model's forward, `[B, ...]` each (`input_ids` and `attention_mask`, or
        `pixel_values`).
    labels: classification `[B]`; causal language model `[B, L]`, aligned with `input_ids` (not shifted). `IGNORE` where
        there is no gold label (an unlabelled example) or nothing is scored (prompt, padding).
    keys: one hash of content per example: what a signal is looked up by.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def empty(self) -> Batch:
        """None of the examples, in their shapes."""
        return Batch({name: value[:0] for name, value in self.inputs.items()}, self.labels[:0], ())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        inputs = {name: value.to(device, non_blocking=non_blocking) for name, value in self.inputs.items()}
        return Batch(inputs, self.labels.to(device, non_blocking=non_blocking), self.keys)
