"""A teacher that is asked once per example, not once per epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from potstill.data.batch import Batch
from potstill.errors import UserError
from potstill.signals.cached import CachedTeacher
from potstill.signals.live import LiveTeacher
from potstill.signals.once import AskedOnce
from potstill.signals.protocol import Needs, Signal


class RememberedTeacher(AskedOnce[Tensor]):
    """Keeps each example's logits, or embeddings, in CPU memory, by the example's key, as the teacher gave them.

    One row an example. Hidden states are not kept: whoever asks for taps gets the live teacher.
    """

    def __init__(self, source: LiveTeacher | CachedTeacher) -> None:
        if source.task.is_causal:
            problem = "remembers one row per example; a language model has thousands, each as wide as the vocabulary."
            raise UserError("teacher.remember", True, problem, "Set teacher.remember=false.")
        super().__init__(source, source.task, source.task.output)
        self._kept = "embeddings" if source.task.is_embedding else "logits"
        self._rows: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Keys, and their rows as one tensor; nothing where nothing is remembered."""
        return {"keys": list(self._rows), self._kept: torch.stack([*self._rows.values()])} if self._rows else {}

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Remember what these states hold, and nothing else; of a key in several, the last."""
        self._rows = {
            key: row for state in states if state for key, row in zip(state["keys"], state[self._kept], strict=True)
        }

    def _known(self, key: str) -> Tensor | None:
        return self._rows.get(key)

    def _asked(self, batch: Batch) -> dict[str, Tensor]:
        # cloned: a row that is a view would keep those of its whole batch alive
        rows = getattr(self.source.signal(batch, self.needs), self._kept).cpu()
        asked = {key: row.clone() for key, row in zip(batch.keys, rows, strict=True)}
        self._rows |= asked
        return asked

    def _together(self, answers: Sequence[Tensor], batch: Batch, needs: Needs) -> Signal:  # noqa: ARG002
        kept: dict[str, Any] = {self._kept: batch.beside(torch.stack(list(answers)))}
        return Signal(**kept)
