"""A teacher that is asked once per example, not once per epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from potstill.data.batch import Batch
from potstill.errors import UserError
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, Signal


class RememberedTeacher:
    """Keeps each example's logits, or embeddings, in CPU memory, by the example's key, as the teacher gave them.

    One row an example. Hidden states are not kept: whoever asks for taps gets the live teacher.
    """

    def __init__(self, source: LiveTeacher) -> None:
        if source.task.is_causal:
            problem = "remembers one row per example; a language model has thousands, each as wide as the vocabulary."
            raise UserError("teacher.remember", True, problem, "Set teacher.remember=false.")
        self._source = source
        self._kept = "embeddings" if source.task.is_embedding else "logits"
        self._rows: dict[str, Tensor] = {}

    @property
    def model(self) -> nn.Module:
        return self._source.model

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """The live teacher's answer; the model sees only the examples of `batch` that it has not seen yet."""
        if needs != self._source.task.output or not batch.keys:
            return self._source.signal(batch, needs)
        self._learn(batch)
        rows = torch.stack([self._rows[key] for key in batch.keys]).to(batch.labels.device)
        return Signal(embeddings=rows) if self._kept == "embeddings" else Signal(logits=rows)

    def to(self, device: torch.device) -> RememberedTeacher:
        self._source.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Keys, and their rows as one tensor; nothing where nothing is remembered."""
        return {"keys": list(self._rows), self._kept: torch.stack([*self._rows.values()])} if self._rows else {}

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Remember what these states hold, and nothing else; of a key in several, the last."""
        self._rows = {
            key: row for state in states if state for key, row in zip(state["keys"], state[self._kept], strict=True)
        }

    def _learn(self, batch: Batch) -> None:
        unseen = {key: example for example, key in enumerate(batch.keys) if key not in self._rows}
        if not unseen:
            return
        signal = self._source.signal(batch.take(list(unseen.values())), self._source.task.output)
        # cloned: a row that is a view would keep those of its whole batch alive
        rows = getattr(signal, self._kept).cpu()
        self._rows |= {key: row.clone() for key, row in zip(unseen, rows, strict=True)}
