"""What a model says on every scored row of an evaluation set, in one pass and without keeping its logits."""

# N rows, C classes

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from potstill.data.batch import IGNORE, Batch
from potstill.evaluation.scores import Scores
from potstill.models.forward import forward
from potstill.models.task import Task
from potstill.signals.protocol import Needs


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """No gradients, no dropout; the model's train/eval switch is put back afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def predict(model: nn.Module, batches: Iterable[Batch], task: Task, label_order: Sequence[int] | None = None) -> Scores:
    """Score every row of `batches` on the model's device.

    label_order: the model's column for each of the data's labels (`potstill.models.labels.label_order`); None where
        they are in order.
    """
    device = next(model.parameters()).device
    with inference(model):
        return Scores.joined([_score(model, batch.to(device), task, label_order) for batch in batches])


def _score(model: nn.Module, batch: Batch, task: Task, label_order: Sequence[int] | None) -> Scores:
    logits_NC = forward(model, batch, task, Needs(logits=True)).logits
    assert logits_NC is not None
    if label_order is not None:
        logits_NC = logits_NC[:, list(label_order)]
    label_N = task.row_labels(batch)
    nll_N = cross_entropy(logits_NC.float(), label_N, ignore_index=IGNORE, reduction="none").double()
    nll_N = nll_N.masked_fill(label_N == IGNORE, torch.nan)  # cross_entropy gives 0, which would pass for certainty
    columns = (logits_NC.argmax(-1), nll_N, label_N, _example_of_row(batch, task))
    return Scores(*(column.cpu().numpy() for column in columns), num_examples=len(batch))


def _example_of_row(batch: Batch, task: Task) -> Tensor:
    """Which example of the batch each row belongs to, `[N]`."""
    rows_N = task.scored_rows(batch)
    return torch.arange(len(batch)) if rows_N is None else rows_N // batch.labels.shape[1]
