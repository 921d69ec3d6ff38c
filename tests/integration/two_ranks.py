"""Run as a program: trains on two ranks of this machine, and writes what each rank saw to `<directory>/<rank>.pt`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from potstill.data.batch import Batch
from potstill.distributed import max_over_ranks, sum_over_ranks, world_size

from .distil import Gradients, batch, distillation, fit, loader

TERMS = ("ce", "kd", "hidden_mse")
# Examples of each of two global batches, by rank. The second leaves nothing to rank 1.
SHARES = (([0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [1, 2, 13, 14, 15]), ([0, 1, 2, 3], []))


def whole_batches(task: str) -> list[Batch]:
    return [examples(batch(task), first + second) for first, second in SHARES]


def examples(batch: Batch, rows: list[int]) -> Batch:
    inputs = {name: value[rows] for name, value in batch.inputs.items()}
    return Batch(inputs, batch.labels[rows], tuple(batch.keys[row] for row in rows))


class Shared(pl.LightningDataModule):
    """Each rank's share of the global batches."""

    def __init__(self, task: str) -> None:
        super().__init__()
        self.task = task

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        return loader([examples(batch(self.task), shares[self.trainer.global_rank]) for shares in SHARES])


class Witness(Gradients):
    """Gradients and metrics of every step, and the answers to the questions ranks ask each other."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.metrics: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        rank, device = trainer.global_rank, pl_module.device
        facts = {
            "world_size": world_size(),
            "sum": sum_over_ranks({"labelled": 1 + rank, "scored": 10 * rank}, device),
            "max": max_over_ranks(5 - 3 * rank, device),
            "gradients": self.steps,
            "metrics": self.metrics,
        }
        torch.save(facts, self.directory / f"{rank}.pt")


def main(directory: Path, task: str) -> None:
    module = distillation(task, *TERMS, max_tokens=40)
    fit(module, Shared(task), callbacks=[Witness(directory)], devices=2, strategy="ddp_spawn")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
