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
    host: of a batch on an accelerator, the same on the CPU, where it was read. What a program has to know in numbers
        (how long, how many, which rows) is asked of that one, so that nobody waits for the accelerator.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    keys: tuple[str, ...]
    numbers: Tensor | None = None
    routes: tuple[str, ...] = ()
    weights: Tensor | None = None
    host: Batch | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, examples: Sequence[int]) -> Batch:
        """The examples of these numbers, padded as they are."""
        index = self.beside(torch.tensor(examples, dtype=torch.long))
        keys, routes = (tuple(each[example] for example in examples if each) for each in (self.keys, self.routes))
        taken = self._mapped(lambda value: value.index_select(0, index))
        return replace(taken, keys=keys, routes=routes, host=None if self.host is None else self.host.take(examples))

    def empty(self) -> Batch:
        """None of the examples, in their shapes."""
        return self.take([])

    def pin_memory(self) -> Batch:
        """In memory that an accelerator reads by itself; called by data loaders."""
        return self._mapped(lambda value: value.pin_memory())

    def to(self, device: torch.device | str) -> Batch:
        """Without waiting, where the memory it is in allows it."""
        if self.labels.device == torch.device(device):
            return self
        host = self if self.labels.device.type == "cpu" else None
        return replace(self._mapped(lambda value: _sent(value, device)), host=host)

    @property
    def on_host(self) -> Batch:
        return self if self.host is None else self.host

    def beside(self, value: Tensor) -> Tensor:
        """What was found out on the host, where the batch lies."""
        return _sent(value, self.labels.device)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """With every tensor changed alike."""
        inputs = {name: change(value) for name, value in self.inputs.items()}
        others = {name: getattr(self, name) for name in ("labels", "numbers", "weights")}
        changed = {name: None if value is None else change(value) for name, value in others.items()}
        return replace(self, inputs=inputs, **changed)


def _sent(value: Tensor, device: torch.device | str) -> Tensor:
    return value.to(device, non_blocking=torch.device(device).type == "cuda")
