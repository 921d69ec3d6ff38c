"""Which weights are kept: the best on validation, and the last."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint, EarlyStopping, ModelCheckpoint, ProgressBar
from typing_extensions import override

from potstill.errors import DivergedError, UserError, nearest_hint
from potstill.tracking.interruption import Agreeing, StopAskedError

LAST = "last.ckpt"

# Validation only: a model chosen on test data has been trained on it.
MONITORS = {"val/accuracy": "max", "val/loss": "min", "val/ndcg_at_10": "max", "val/spearman": "max"}


class LastCheckpoint(Checkpoint):
    """`last.ckpt`, to go on from: all that the next step depends on, as it is after a step and its validation.

    Written after every validation, every `every_minutes` and `every_steps` (None: not by these), at the end, and when
    training stops for a signal or a loss that is not finite; always before the next batch begins.
    """

    def __init__(self, directory: str, every_minutes: float | None = 10.0, every_steps: int | None = None) -> None:
        self.path = Path(directory) / LAST
        self.every_minutes = _positive("callbacks.last.every_minutes", every_minutes)
        self.every_steps = _positive("callbacks.last.every_steps", every_steps)
        self._validated, self._goes_on = False, False
        self._saved_step, self._saved_at = 0, 0.0

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validated = True

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._goes_on:  # after a restart, Lightning counts the loggers' steps one too far
            trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
            self._goes_on = False
        by_steps = bool(self.every_steps) and trainer.global_step % (self.every_steps or 1) == 0
        module = cast("Agreeing", pl_module)
        if self._validated or by_steps or module.agreed["save"]:
            self._save(trainer)
        minutes = (time.monotonic() - self._saved_at) / 60.0
        module.asked["save"] = self.every_minutes is not None and minutes >= self.every_minutes

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        within_epoch(trainer)
        self._save(trainer)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Both are raised on every rank, with the weights of the last completed step."""
        is_whole = not (isinstance(exception, DivergedError) and exception.is_late)
        if is_whole and isinstance(exception, StopAskedError | DivergedError):
            self._save(trainer)

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        between_batches(checkpoint["loops"]["fit_loop"])
        checkpoint["stopped_early"] = trainer.should_stop

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._goes_on = True
        trainer.should_stop = checkpoint["stopped_early"]

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.global_step > self._saved_step:
            trainer.save_checkpoint(self.path)
        self._saved_step, self._saved_at, self._validated = trainer.global_step, time.monotonic(), False


def between_batches(fit_loop: dict[str, Any]) -> None:
    """Make of a batch that has begun, in the state of Lightning's loops, one that is still to come."""
    progress = fit_loop["epoch_loop.batch_progress"]
    if progress["total"]["ready"] > progress["total"]["completed"]:
        progress["is_last_batch"] = False
    for counts in (progress["total"], progress["current"]):
        counts |= dict.fromkeys(counts, counts["completed"])


def within_epoch(trainer: pl.Trainer) -> None:
    """Take back an epoch that Lightning counts though training ended within it, for the last step or by early stopping.

    Extended, the training would leave out what remains of the epoch's examples.
    """
    batches, epochs = trainer.fit_loop.epoch_loop.batch_progress, trainer.fit_loop.epoch_progress
    is_counted = epochs.current.completed == epochs.current.ready
    if is_counted and batches.current.completed and not batches.is_last_batch:
        for counts in (epochs.total, epochs.current):
            counts.completed -= 1
            counts.processed -= 1  # type: ignore[attr-defined]


def best_checkpoint(directory: str, task: str, monitor: str = "auto") -> ModelCheckpoint:
    """`best.ckpt`, written whenever `monitor` improves on validation. Of equals the first is kept.

    monitor: a key of MONITORS, or `auto`: the accuracy for a classifier, else the loss.
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
        return "val/loss" if task in ("causal_lm", "embedding") else "val/accuracy"
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
        "enable_checkpointing": any(isinstance(callback, Checkpoint) for callback in callbacks),
        "enable_progress_bar": any(isinstance(callback, ProgressBar) for callback in callbacks),
    }


def _positive(key: str, value: float | None) -> Any:
    if value is not None and value <= 0:
        raise UserError(key, value, "must be greater than zero, or null.", f"For example: {key}=10")
    return value
