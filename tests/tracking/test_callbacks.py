from __future__ import annotations

import logging
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
import rich
import torch
from pytorch_lightning.callbacks import RichProgressBar
from rich.console import Console

from potstill.data.batch import IGNORE, Batch
from potstill.errors import UserError
from potstill.models.task import TASKS
from potstill.tracking.callbacks import ProgressLines, Throughput, progress
from potstill.tracking.logger import csv_logger
from potstill.tracking.metrics_file import read_rows

from .conftest import TinyModule, fit

STEP_SECONDS, VALIDATION_SECONDS = 0.05, 0.5


class SlowModule(TinyModule):
    """Steps and validations of known length."""

    def training_step(self, batch, batch_idx):
        time.sleep(STEP_SECONDS)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):  # noqa: ARG002
        time.sleep(VALIDATION_SECONDS)


def trained_rates(task, module, **options):
    trainer = fit(module, callbacks=[Throughput(task, window_steps=10)], **options)
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.endswith("_per_s")}


def test_rates_count_rows_and_attended_tokens_and_no_validation():
    rates = trained_rates("text_classification", SlowModule())
    # 2 rows and 5 attended tokens (not 6 positions) a step; with validation in it there would be 9 rows/s
    assert 2 / STEP_SECONDS * 0.3 < rates["train/rows_per_s"] <= 2 / STEP_SECONDS
    assert rates["train/tokens_per_s"] == pytest.approx(rates["train/rows_per_s"] * 5 / 2)


def test_a_language_models_rows_are_its_scored_tokens_on_all_ranks(monkeypatch):
    labels = torch.tensor([[IGNORE, IGNORE, 7, 8]])
    batch = Batch({"input_ids": torch.ones(1, 4, dtype=torch.long), "attention_mask": torch.ones(1, 4)}, labels, ("a",))
    clock = iter([10.0, 10.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    logged: dict[str, float] = {}
    counts = TASKS["causal_lm"].count_rows(batch)
    two_ranks = cast(Any, SimpleNamespace(world_size=2))
    module = cast(Any, SimpleNamespace(metrics=SimpleNamespace(add=logged.update), local_rows=counts, is_logged=True))
    callback = Throughput("causal_lm")
    callback.on_train_start(two_ranks, module)
    callback.on_train_batch_end(two_ranks, module, None, batch, 0)
    assert logged == {"train/rows_per_s": 2 * 2 / 0.5, "train/tokens_per_s": 4 * 2 / 0.5}


def test_images_have_no_tokens():
    assert set(trained_rates("image_classification", TinyModule())) == {"train/rows_per_s"}


def test_a_step_is_one_row_with_the_numbers_of_module_and_callbacks(tmp_path):
    trainer = fit(TinyModule(), callbacks=[Throughput("text_classification")], logger=csv_logger(str(tmp_path)))
    steps = [row for row in read_rows(tmp_path / "metrics.csv") if row["train/loss"]]
    assert [int(row["step"]) for row in steps] == list(range(trainer.global_step))
    assert all(float(row["train/rows_per_s"]) > 0 and float(row["train/tokens_per_s"]) > 0 for row in steps)
    assert {int(row["epoch"]) for row in steps} == {0, 1, 2}


def test_without_a_terminal_progress_is_a_line_every_few_steps(caplog):
    callback = progress(every_steps=2)
    assert isinstance(callback, ProgressLines)
    with caplog.at_level(logging.INFO, logger="potstill.tracking.callbacks"):
        fit(TinyModule(), callbacks=[callback], enable_progress_bar=True)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("potstill")]
    assert len(lines) == 6
    assert lines[2].startswith("step 4/6  train/loss ")
    assert lines[3] == "step 4/6  val/accuracy 0.9  val/loss 0.5"


def test_in_a_terminal_progress_is_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(rich, "_console", Console(force_terminal=True))
    assert isinstance(progress(), RichProgressBar)


@pytest.mark.parametrize("build", [lambda: progress(every_steps=0), lambda: Throughput("causal_lm", window_steps=0)])
def test_a_step_count_of_zero_is_refused(build):
    with pytest.raises(UserError, match="at least one step"):
        build()


def test_a_task_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match=r"data\.task"):
        Throughput("text_clasification")
