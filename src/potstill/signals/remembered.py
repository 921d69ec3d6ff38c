"""A teacher that is asked once per example, not once per epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from potstill.data.batch import Batch
from potstill.errors import UserError
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, Signal


class RememberedTeacher:
    """Keeps each example's logits in CPU memory, by the example's key, as the teacher gave them.

    For classification: one row an example. Hidden states are not kept: whoever asks for taps gets the live teacher.
    """

    def __init__(self, source: LiveTeacher) -> None:
        if source.task.is_causal:
            problem = "remembers one row per example; a language model has thousands, each as wide as the vocabulary."
            raise UserError("teacher.remember", True, problem, "Set teacher.remember=false.")
        self._source = source
        self._rows: dict[str, Tensor] = {}

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """The live teacher's answer; the model sees only the examples of `batch` that it has not seen yet."""
        if needs.taps or not needs.logits or not batch.keys:
            return self._source.signal(batch, needs)
        self._learn(batch)
        return Signal(torch.stack([self._rows[key] for key in batch.keys]).to(batch.labels.device))

    def to(self, device: torch.device) -> RememberedTeacher:
        self._source.to(device)
        return self

    def _learn(self, batch: Batch) -> None:
        unseen = {key: example for example, key in enumerate(batch.keys) if key not in self._rows}
        if not unseen:
            return
        logits = self._source.signal(_examples(batch, list(unseen.values())), Needs(logits=True)).logits
        assert logits is not None
        # cloned: a row that is a view would keep the logits of its whole batch alive
        self._rows |= {key: row.clone() for key, row in zip(unseen, logits.cpu(), strict=True)}


def _examples(batch: Batch, examples: list[int]) -> Batch:
    """Some of the examples, padded as they are."""
    index = torch.tensor(examples, device=batch.labels.device)
    inputs = {name: value.index_select(0, index) for name, value in batch.inputs.items()}
    return Batch(inputs, batch.labels.index_select(0, index), tuple(batch.keys[example] for example in examples))
