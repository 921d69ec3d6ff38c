from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

from potstill.tracking.checkpoints import LastCheckpoint
from potstill.tracking.interruption import StopAskedError, StopAtSignal

from .conftest import TinyModule, fit


class SignalledModule(TinyModule):
    """Gets signals in its third step."""

    def __init__(self, *signals: signal.Signals) -> None:
        super().__init__()
        self.signals = signals

    def training_step(self, batch, batch_idx):
        if self.global_step == 2:
            for number in self.signals:
                os.kill(os.getpid(), number)
        return super().training_step(batch, batch_idx)


def handlers() -> list:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_step_under_way_ends_and_is_saved(number, tmp_path):
    before = handlers()
    callbacks = [LastCheckpoint(str(tmp_path)), StopAtSignal()]
    module = SignalledModule(number)
    with pytest.raises(StopAskedError):
        fit(module, callbacks=callbacks, enable_checkpointing=True)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert saved["state_dict"]["weight"] == module.weight
    assert handlers() == before, "whoever handled the signals before must handle them again"


def test_a_training_without_a_signal_leaves_the_handlers_as_they_were():
    before = handlers()
    fit(TinyModule(), callbacks=[StopAtSignal()], epochs=1)
    assert handlers() == before


def test_a_signal_that_is_ignored_stays_so():
    """A shell has the jobs of a script's background ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        fit(SignalledModule(signal.SIGINT), callbacks=[StopAtSignal()], epochs=1)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_training_in_another_thread_leaves_signals_alone():
    thread = threading.Thread(target=lambda: fit(TinyModule(), callbacks=[StopAtSignal()], epochs=1))
    thread.start()
    thread.join()
    fit(TinyModule(), callbacks=[StopAtSignal()], epochs=1)
