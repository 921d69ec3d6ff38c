"""The real W&B client, offline, away from the user's login, settings and cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import wandb
from torch.utils.data import DataLoader

from potstill.data.batch import Batch
from potstill.models.task import TASKS
from potstill.step_metrics import StepMetrics
from potstill.tracking.logger import RunLogger, wandb_logger


class TinyModule(pl.LightningModule):
    """One weight, two optimizer steps an epoch; `val/accuracy` follows a script, one value a validation."""

    def __init__(self, accuracies: tuple[float, ...] = (0.5, 0.9, 0.7)) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.accuracies = list(accuracies)
        self.asked = {"stop": False, "save": False}
        self.agreed = dict(self.asked)
        self.is_logged, self.local_rows, self.metrics = True, {}, StepMetrics()

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002
        self.local_rows = TASKS["text_classification"].count_rows(batch)
        self.agreed = dict(self.asked)
        loss = (self.weight - 1.0).square()
        self.metrics.add({"train/loss": loss})
        self.metrics.show(self.trainer)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.metrics.log(self.trainer)

    def on_validation_epoch_end(self) -> None:
        epoch = min(self.current_epoch, len(self.accuracies) - 1)
        self.log_dict({"val/accuracy": self.accuracies[epoch], "val/loss": 1.0 / (1 + epoch)})

    def validation_step(self, batch: Batch, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def batches(num_batches: int = 2) -> DataLoader:
    """Two texts a batch, 5 attended tokens of 6, every label gold."""
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    batch = Batch({"input_ids": mask.clone(), "attention_mask": mask}, torch.tensor([0, 1]), ("a", "b"))
    return DataLoader([batch] * num_batches, batch_size=None)  # type: ignore[arg-type]


def fit(module: pl.LightningModule, *, epochs: int = 3, ckpt_path: Any = None, **options: Any) -> pl.Trainer:
    """`module` trained by a real, silent Lightning trainer, from the start or from a checkpoint."""
    defaults: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
    }
    trainer = pl.Trainer(max_epochs=epochs, **{**defaults, **options})
    trainer.fit(module, batches(), batches(1), ckpt_path=ckpt_path)
    return trainer


@pytest.fixture(scope="package", autouse=True)
def wandb_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    client = tmp_path_factory.mktemp("client")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("NETRC", str(client / "netrc"))
        for name in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{name}_DIR", str(client))
        wandb.teardown()  # the client reads the environment once
        yield
        wandb.teardown()


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., RunLogger]:
    """Starts an offline W&B run in `tmp_path / name`."""

    def start_run(name: str = "run", **options: Any) -> RunLogger:
        return wandb_logger(str(tmp_path / name), name, "digits", "train", mode="offline", **options)

    return start_run
