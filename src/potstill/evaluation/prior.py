"""The most frequent label, given to everything: what any model has to be better than."""

# C classes, N rows

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from potstill.data.batch import IGNORE, Batch
from potstill.evaluation.predict import ModelUnderTest
from potstill.models.task import Task
from potstill.signals.protocol import Needs, Signal


class Prior(nn.Module):
    """Answers every row with the logarithm of how often each class occurs among `labels`, one added to each count."""

    def __init__(self, labels: Sequence[int], num_classes: int, task: Task) -> None:
        super().__init__()
        known = torch.tensor([label for label in labels if label != IGNORE], dtype=torch.long)
        counts_C = 1 + torch.bincount(known, minlength=num_classes).float()
        self.log_shares = nn.Parameter((counts_C / counts_C.sum()).log(), requires_grad=False)
        self.task = task

    @property
    def model(self) -> nn.Module:
        return self

    def signal(self, batch: Batch, needs: Needs) -> Signal:  # noqa: ARG002
        return Signal(logits=self.log_shares.expand(len(self.task.row_labels(batch)), -1))


def majority(labels: Sequence[int], num_classes: int, task: Task) -> ModelUnderTest | None:
    """None where no training example has a label."""
    if all(label == IGNORE for label in labels):
        return None
    prior = Prior(labels, num_classes, task)
    return ModelUnderTest(prior, source=prior)
