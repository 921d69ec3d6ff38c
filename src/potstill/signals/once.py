"""A teacher that is asked about each example once, wherever its answers are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Self, TypeVar

import torch
from torch import nn

from potstill.data.batch import Batch
from potstill.models.task import Task
from potstill.signals.protocol import Needs, Signal, SignalSource

Answer = TypeVar("Answer")


class AskedOnce(Generic[Answer]):
    """Answers what it knows by the key of each example, and asks `source` about the others, all of a batch together.

    needs: what it keeps; of anything else `source` is asked every time.
    """

    def __init__(self, source: SignalSource, task: Task, needs: Needs) -> None:
        self.source, self.task, self.needs = source, task, needs

    @property
    def model(self) -> nn.Module | None:
        return self.source.model

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """The source's answer; its model sees only the examples of `batch` that are not known yet."""
        if not self._keeps(needs) or not batch.keys:
            return self._unkept(batch, needs)
        known = {key: answer for key in batch.keys if (answer := self._known(key)) is not None}
        unknown = {key: example for example, key in enumerate(batch.keys) if key not in known}
        if unknown:
            known |= self._asked(batch.take(list(unknown.values())))
        return self._together([known[key] for key in batch.keys], batch, needs)

    def to(self, device: torch.device) -> Self:
        self.source.to(device)
        return self

    def _keeps(self, needs: Needs) -> bool:
        return needs == self.needs

    def _unkept(self, batch: Batch, needs: Needs) -> Signal:
        return self.source.signal(batch, needs)

    def _known(self, key: str) -> Answer | None:
        raise NotImplementedError

    def _asked(self, batch: Batch) -> dict[str, Answer]:
        """Ask about every example of `batch`, and keep the answers where they are kept."""
        raise NotImplementedError

    def _together(self, answers: Sequence[Answer], batch: Batch, needs: Needs) -> Signal:
        """One signal of the answers to the examples of `batch`, on its device."""
        raise NotImplementedError
