"""metrics.csv of a run that was killed and went on has the rows of one that was not."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_only

from potstill.tracking.checkpoint_file import CheckpointFile
from potstill.tracking.logger import csv_logger
from potstill.tracking.metrics_file import read_rows

from .conftest import TinyModule, fit

FULL = """
import resource, sys
from potstill.errors import StoppedError
from potstill.tracking.logger import csv_logger
logger = csv_logger(sys.argv[1])
logger.log_metrics({"a": 1.0}, 0)
logger.save()
resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
logger.log_metrics({"a": 2.0}, 1)
try:
    logger.save()
except StoppedError as error:
    print(error)
"""


class Killed(BaseException):
    """As sudden as Python allows: no hook of the trainer runs."""


class SaveThenKill(Callback):
    """Saves `path` before step `save` begins, and is killed before step `kill`."""

    def __init__(self, path: Path, save: int, kill: int) -> None:
        self.path, self.save, self.kill = path, save, kill

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.save:
            trainer.save_checkpoint(self.path)
        if trainer.global_step == self.kill:
            raise Killed


class CountSteps(Callback):
    """Lightning adds a step to its loggers' count for a checkpoint that was saved before a batch began."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step


def rows_of(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def written(directory: Path, *rows: tuple[int, dict[str, float]], **options: Any) -> list[dict[str, str]]:
    logger = csv_logger(str(directory), **options)
    for step, metrics in rows:
        logger.log_metrics(metrics, step)  # type: ignore[arg-type]
        logger.save()
    return rows_of(directory)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize(("save", "kill"), [(1, 2), (2, 2), (2, 5), (3, 4)])  # two steps an epoch, then a validation
def test_a_killed_run_that_goes_on_has_the_rows_of_one_that_was_not_killed(tmp_path, save, kill):
    whole, killed, path = tmp_path / "whole", tmp_path / "killed", tmp_path / "last.ckpt"
    fit(TinyModule(), logger=csv_logger(str(whole)))
    with pytest.raises(Killed):
        fit(TinyModule(), logger=csv_logger(str(killed)), callbacks=[SaveThenKill(path, save, kill)])
    assert len(rows_of(killed)) < len(rows_of(whole))

    resume_step = CheckpointFile().load_checkpoint(path)["global_step"]
    assert resume_step == save
    logger = csv_logger(str(killed), resume_step=resume_step)
    fit(TinyModule(), logger=logger, ckpt_path=path, callbacks=[CountSteps()])
    assert (killed / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()


def test_rows_of_steps_that_are_repeated_are_dropped_with_their_validation(tmp_path):
    written(tmp_path, (0, {"a": 0.5}), (1, {"a": 0.4}), (1, {"val": 0.9}), (2, {"a": 0.3}))
    rows = written(tmp_path, (2, {"a": 0.25}), resume_step=2)
    assert [(row["step"], row["a"], row["val"]) for row in rows] == [
        ("0", "0.5", ""),
        ("1", "0.4", ""),
        ("1", "", "0.9"),
        ("2", "0.25", ""),
    ]


def test_a_row_that_was_torn_is_not_half_a_number(tmp_path):
    written(tmp_path, (0, {"z": 0.5}), (1, {"z": 0.1234567}))
    path = tmp_path / "metrics.csv"
    os.truncate(path, path.stat().st_size - 6)
    assert not path.read_text().endswith("\n")
    rows = written(tmp_path, (1, {"z": 0.1234567}), resume_step=2)
    assert [row["z"] for row in rows] == ["0.5", "0.1234567"]


def test_metrics_that_are_new_after_the_resume_get_a_column(tmp_path):
    written(tmp_path, (0, {"b": 1.0}))
    rows = written(tmp_path, (1, {"a": 2.0}), (2, {"b": 3.0}), resume_step=1)
    assert list(rows[0]) == ["a", "b", "step"]
    assert [(row["a"], row["b"]) for row in rows] == [("", "1.0"), ("2.0", ""), ("", "3.0")]


def test_a_run_without_metrics_yet_starts_a_file_when_it_goes_on(tmp_path):
    assert written(tmp_path, (0, {"a": 1.0}), resume_step=0) == [{"a": "1.0", "step": "0"}]
    assert written(tmp_path, (0, {"b": 1.0}), resume_step=0) == [{"b": "1.0", "step": "0"}]


def test_a_longer_header_is_written_beside_the_rows_and_not_over_them(tmp_path, monkeypatch):
    written(tmp_path, (0, {"a": 1.0}))
    before = (tmp_path / "metrics.csv").read_text()

    def killed(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(Killed):
        written(tmp_path, (1, {"b": 1.0}), resume_step=1)
    assert (tmp_path / "metrics.csv").read_text() == before


@pytest.mark.slow
@pytest.mark.thorough
def test_a_full_disk_stops_the_run_and_the_earlier_rows_are_read_again(tmp_path):
    result = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    assert "metrics.csv could not be written: File too large" in result.stdout
    assert [row["step"] for row in read_rows(tmp_path / "metrics.csv")] == ["0"]
    assert [row["a"] for row in written(tmp_path, (1, {"a": 2.0}), resume_step=1)] == ["1.0", "2.0"]


@pytest.mark.parametrize("resume_step", [None, 1])
def test_the_ranks_that_write_nothing_leave_the_file_alone(tmp_path, monkeypatch, resume_step):
    written(tmp_path, (0, {"a": 1.0}))
    before = (tmp_path / "metrics.csv").read_text()
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = csv_logger(str(tmp_path), resume_step=resume_step)
    logger.log_metrics({"a": 2.0}, 1)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text() == before
