"""The one shape in which data reaches the module: a batch of examples."""

# B examples, K texts of an example, L positions

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

IGNORE = -100  # label of a position or example that no gold term scores


@dataclass
class Batch:
    """B examples, tokenised and padded.

    inputs: keyword arguments of the model's forward, `[B, ...]` each (`input_ids` and `attention_mask`, or
        `pixel_values`); of embeddings `[B, K, L]`.
    labels: classification `[B]`; causal language model `[B, L]`, aligned with `input_ids` (not shifted); embeddings
        `[B]`: texts of the same number belong together, or, in float32, the score of a pair. `IGNORE` where there is no
        gold label (an unlabelled example) or nothing is scored (prompt, padding).
    keys: one hash of content per example: what a signal is looked up by.
    numbers: `[B]`, each example's place in its split: what a memory of all examples is looked up by. None where the
        batch was made by hand.
    routes: where a column says which teacher an example has, its value per example.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    keys: tuple[str, ...]
    numbers: Tensor | None = None
    routes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, examples: Sequence[int]) -> Batch:
        """The examples of these numbers, padded as they are."""
        index = torch.tensor(examples, dtype=torch.long, device=self.labels.device)
        keys, routes = (tuple(each[example] for example in examples if each) for each in (self.keys, self.routes))
        numbers = None if self.numbers is None else self.numbers.index_select(0, index)
        inputs = {name: value.index_select(0, index) for name, value in self.inputs.items()}
        return Batch(inputs, self.labels.index_select(0, index), keys, numbers, routes)

    def empty(self) -> Batch:
        """None of the examples, in their shapes."""
        return self.take([])

    def pin_memory(self) -> Batch:
        """In memory that an accelerator reads by itself; called by data loaders."""
        inputs = {name: value.pin_memory() for name, value in self.inputs.items()}
        numbers = None if self.numbers is None else self.numbers.pin_memory()
        return replace(self, inputs=inputs, labels=self.labels.pin_memory(), numbers=numbers)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        if self.labels.device == torch.device(device):
            return self
        inputs = {name: value.to(device, non_blocking=non_blocking) for name, value in self.inputs.items()}
        numbers = None if self.numbers is None else self.numbers.to(device, non_blocking=non_blocking)
        return replace(self, inputs=inputs, labels=self.labels.to(device, non_blocking=non_blocking), numbers=numbers)
