"""The one shape in which data reaches the module: a batch of examples."""

# B examples, K texts of an example, L positions

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    weights: `[B]`, how much the rows of each example count in training; None: all alike.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    keys: tuple[str, ...]
    numbers: Tensor | None = None
    routes: tuple[str, ...] = ()
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, examples: Sequence[int]) -> Batch:
        """The examples of these numbers, padded as they are."""
        index = torch.tensor(examples, dtype=torch.long, device=self.labels.device)
        keys, routes = (tuple(each[example] for example in examples if each) for each in (self.keys, self.routes))
        taken = self._mapped(lambda value: value.index_select(0, index))
        return replace(taken, keys=keys, routes=routes)

    def empty(self) -> Batch:
        """None of the examples, in their shapes."""
        return self.take([])

    def pin_memory(self) -> Batch:
        """In memory that an accelerator reads by itself; called by data loaders."""
        return self._mapped(lambda value: value.pin_memory())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        if self.labels.device == torch.device(device):
            return self
        return self._mapped(lambda value: value.to(device, non_blocking=non_blocking))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """With every tensor changed alike."""
        inputs = {name: change(value) for name, value in self.inputs.items()}
        others = {name: getattr(self, name) for name in ("labels", "numbers", "weights")}
        changed = {name: None if value is None else change(value) for name, value in others.items()}
        return replace(self, inputs=inputs, **changed)
