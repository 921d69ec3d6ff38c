"""Runs that are cut off, and what is compared of two runs."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.interruptions import same
from potstill.module import DistillationModule

IMAGES = (
    *("train", "student=vit_digits_tiny", "student.config.hidden_dropout_prob=0.1"),  # dropout: random numbers count
    *("logger=csv", "log_every=1", "limit_batches=4"),
)
STATE = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "stopped_early")


class CutOffError(Exception):
    """No checkpoint is saved for it, as none is at `kill -9`; loggers and manifest are still closed."""


@contextmanager
def cut_off(before: int | str) -> Iterator[None]:
    """Training ends before optimizer step `before`, or, for "export", before the student is written."""

    def fail(*_: Any) -> None:
        raise CutOffError

    with pytest.MonkeyPatch.context() as patch:
        if before == "export":
            patch.setattr("potstill.commands.train.export", fail)
        else:
            at_step(patch, int(before), fail)
        with pytest.raises(CutOffError):
            yield


def at_step(patch: pytest.MonkeyPatch, step: int, act: Callable[[], Any], method: str = "training_step") -> None:
    """Call `act` when `method` of the module begins and so many optimizer steps are done."""
    inner = getattr(DistillationModule, method)

    def wrapped(module: DistillationModule, *arguments: Any) -> Any:
        if module.global_step == step:
            act()
        return inner(module, *arguments)

    patch.setattr(DistillationModule, method, wrapped)


@contextmanager
def once_there(path: Path, act: Callable[[], Any], timeout_s: float = 120) -> Iterator[None]:
    """Beside the body: call `act` a moment after `path` has come to be."""
    ended = threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + timeout_s
        while not path.exists() and not ended.wait(0.01) and time.monotonic() < deadline:
            pass
        if path.exists():
            act()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def metrics(run: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv, rates left out: they are measured."""
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if value and not name.endswith("_per_s")} for row in rows]


def assert_same_run(run: Path, expected: Path) -> None:
    """Checkpoints, student and metrics are equal to the last bit."""
    for name in ("last", "best"):
        if (expected / "checkpoints" / f"{name}.ckpt").exists():
            found, wanted = checkpoint(run, name), checkpoint(expected, name)
            different = [key for key in STATE if not same(found[key], wanted[key])]
            assert different == [], f"{different} in {name}.ckpt of {run}"
    weights = [each / "student" / "model.safetensors" for each in (run, expected)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert metrics(run) == metrics(expected)
