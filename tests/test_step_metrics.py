from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger

from potstill.step_metrics import StepMetrics


class Rows(Logger):
    """What a logger is given, call by call."""

    name, version = "rows", "0"

    def __init__(self) -> None:
        super().__init__()
        self.given: list[dict[str, Any]] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.given.append({**metrics, "step": step})

    def log_hyperparams(self, params: Any, *args: Any, **options: Any) -> None: ...


def trainer_with(rows: Rows) -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", logger=rows, enable_checkpointing=False, enable_progress_bar=False)


def test_numbers_of_any_shape_and_type_reach_every_reader_once_and_unchanged() -> None:
    rows, metrics = Rows(), StepMetrics()
    trainer = trainer_with(rows)
    metrics.add({"train/loss": torch.tensor(1.5, requires_grad=True), "train/lr": 1.0e-5})
    metrics.add({"train/factor": torch.tensor([2.5], dtype=torch.bfloat16)})
    metrics.show(trainer)
    assert rows.given == [], "callbacks still add theirs"
    assert {name: float(value) for name, value in trainer.callback_metrics.items()}["train/factor"] == 2.5
    assert trainer.progress_bar_metrics == {"train/loss": 1.5}
    metrics.add({"train/rows_per_s": 7.0})
    metrics.log(trainer)
    metrics.log(trainer)
    expected = {"train/loss": 1.5, "train/lr": 1.0e-5, "train/factor": 2.5, "train/rows_per_s": 7.0}
    assert rows.given == [{**expected, "epoch": 0, "step": -1}], "before the first step"
    assert float(trainer.callback_metrics["train/rows_per_s"]) == 7.0
