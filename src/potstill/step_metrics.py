"""The numbers of a training step, from where they are made to whoever reads them."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor

ON_THE_BAR = ("train/loss",)


class StepMetrics:
    """The numbers of one step that is logged, the last of the steps since the one before.

    They stay where they were made until `show`, which fetches all in one copy. Lightning's own `log`, which serves
    validation, works on each number by itself, at steps that are not logged too: many times what a small step takes.
    """

    def __init__(self) -> None:
        self._made: dict[str, Tensor | float] = {}
        self._shown: dict[str, float] = {}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Of tensors, those with one element."""
        self._made |= values

    def show(self, trainer: pl.Trainer) -> None:
        """To callbacks and the progress bar, in what the trainer keeps for them."""
        numbers, self._made = _fetched(self._made), {}
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in numbers.items()})
        trainer.progress_bar_metrics.update({name: numbers[name] for name in ON_THE_BAR if name in numbers})
        self._shown |= numbers

    def log(self, trainer: pl.Trainer) -> None:
        """Everything since the last call goes to the loggers, as one row: that of a step, with the steps before it."""
        if self._made:
            self.show(trainer)
        if not self._shown:
            return
        for logger in trainer.loggers:
            logger.log_metrics({**self._shown, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)
            logger.save()
        self._shown = {}


def _fetched(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """On the CPU: one copy for all, not one for each."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    if not tensors:
        return dict(values)  # type: ignore[arg-type]
    found = torch.stack([value.detach().float().reshape(()) for value in tensors.values()]).tolist()
    return {**values, **dict(zip(tensors, found, strict=True))}
