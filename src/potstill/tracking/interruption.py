"""Signals that ask a training to stop, agreed on by all ranks."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any, Protocol, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

log = logging.getLogger(__name__)


class Agreeing(Protocol):
    """A module whose ranks agree, before each step, on what any of them was asked: `stop`, `save`."""

    asked: dict[str, bool]
    agreed: dict[str, bool]


class StopAskedError(Exception):
    """Raised on every rank, between two steps, once one of them was asked to stop."""


class StopAtSignal(Callback):
    """At SIGINT or SIGTERM the step under way is finished on every rank, then training stops; at a second, at once."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before Lightning puts its own handler there, which would let nothing stop what follows the training."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        # a shell has the jobs of a script's background ignore SIGINT
        self._before = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        asked = cast("Agreeing", pl_module).asked

        def ask(number: int, _frame: object) -> None:
            if asked["stop"]:
                raise KeyboardInterrupt
            asked["stop"] = True
            log.warning("%s: stopping after this step. Once more to stop at once.", signal.Signals(number).name)

        if _is_main_thread():
            for number in self._before:
                signal.signal(number, ask)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if cast("Agreeing", pl_module).agreed["stop"]:
            raise StopAskedError

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        if _is_main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)


def _is_main_thread() -> bool:
    """Signals are no other thread's business."""
    return threading.current_thread() is threading.main_thread()
