"""Which weights are kept: the best on validation, and the last."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, ProgressBar
from typing_extensions import override

from potstill.errors import UserError, nearest_hint

# Validation only: a model chosen on test data has been trained on it.
MONITORS = {"val/accuracy": "max", "val/loss": "min"}


class LastCheckpoint(ModelCheckpoint):
    """`last.ckpt` after every validation and at the end of training, to go on from.

    Not `ModelCheckpoint(save_last=True)` with a monitor: that writes only when the monitored metric improves.
    """

    def __init__(self, directory: str) -> None:
        super().__init__(directory, filename="last", save_top_k=1, enable_version_counter=False)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training may stop between two validations."""
        if self._last_global_step_saved != trainer.global_step:
            trainer.save_checkpoint(self.format_checkpoint_name({}))


def best_checkpoint(directory: str, task: str, monitor: str = "auto") -> ModelCheckpoint:
    """`best.ckpt`, written whenever `monitor` improves on validation. Of equals the first is kept.

    monitor: `val/accuracy`, `val/loss`, or `auto`: the loss for a causal language model, else the accuracy.
    """
    name = monitored(monitor, task, "callbacks.best.monitor")
    return ModelCheckpoint(
        directory, filename="best", monitor=name, mode=MONITORS[name], save_top_k=1, enable_version_counter=False
    )


def early_stopping(task: str, monitor: str = "auto", patience: int = 3, min_delta: float = 0.0) -> EarlyStopping:
    """Stop after `patience` validations in a row that improve `monitor` by no more than `min_delta`."""
    name = monitored(monitor, task, "callbacks.early_stopping.monitor")
    return EarlyStopping(name, mode=MONITORS[name], patience=patience, min_delta=min_delta)


def monitored(monitor: str, task: str, key: str) -> str:
    """The metric that chooses the best weights. Raises UserError, naming `key`, for one that is not on validation."""
    if monitor == "auto":
        return "val/loss" if task == "causal_lm" else "val/accuracy"
    if monitor not in MONITORS:
        raise UserError(key, monitor, "is no metric of the validation data.", nearest_hint(monitor, MONITORS))
    return monitor


def best_path(trainer: pl.Trainer) -> Path | None:
    """The checkpoint with the best validation metric; None where none was written (no such callback, no validation)."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            return Path(callback.best_model_path)
    return None


def trainer_switches(callbacks: Iterable[Callback]) -> dict[str, bool]:
    """Trainer arguments that keep Lightning from adding a checkpoint or a progress bar nobody asked for."""
    callbacks = list(callbacks)
    return {
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
    }
