"""What a model says on every scored row of an evaluation set, in one pass and without keeping its logits."""

# N rows, C classes

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from potstill.data.batch import IGNORE, Batch
from potstill.evaluation.scores import Scores
from potstill.evaluation.texts import RETRIEVAL, TextScores
from potstill.models.forward import forward
from potstill.models.task import Task
from potstill.retrieval import pair_scores, retrieve
from potstill.signals.protocol import SignalSource


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


def predict(
    model: nn.Module,
    batches: Iterable[Batch],
    task: Task,
    label_order: Sequence[int] | None = None,
    source: SignalSource | None = None,
) -> Scores | TextScores:
    """Score every row of `batches` on the model's device.

    label_order: the model's column for each of the data's labels (`potstill.models.labels.label_order`); None where
        they are in order. source: what answers in the place of a model that is several.
    """
    device = next(model.parameters()).device
    with inference(model):
        if task.is_embedding:
            return _score_texts(model, [batch.to(device) for batch in batches], task, source)
        return Scores.joined([_score(model, batch.to(device), task, label_order, source) for batch in batches])


def answer(model: nn.Module, batch: Batch, task: Task, source: SignalSource | None) -> Tensor:
    """Logits of every scored row, `[N, C]`, or embeddings, `[N, K, D]`."""
    output = source.signal(batch, task.output) if source else forward(model, batch, task, task.output)
    given = output.embeddings if task.is_embedding else output.logits
    assert given is not None
    return given


def _score(
    model: nn.Module, batch: Batch, task: Task, label_order: Sequence[int] | None, source: SignalSource | None
) -> Scores:
    logits_NC = answer(model, batch, task, source)
    if label_order is not None:
        logits_NC = logits_NC[:, list(label_order)]
    label_N = task.row_labels(batch)
    nll_N = cross_entropy(logits_NC.float(), label_N, ignore_index=IGNORE, reduction="none").double()
    nll_N = nll_N.masked_fill(label_N == IGNORE, torch.nan)  # cross_entropy gives 0, which would pass for certainty
    columns = (logits_NC.argmax(-1), nll_N, label_N, _example_of_row(batch, task))
    return Scores(*(column.cpu().numpy() for column in columns), num_examples=len(batch))


def _score_texts(model: nn.Module, batches: list[Batch], task: Task, source: SignalSource | None) -> TextScores:
    if not batches:
        return TextScores(dict.fromkeys((*RETRIEVAL, "nearest"), np.empty(0)), np.empty(0), np.empty(0, np.int64), 0)
    labels_N = torch.cat([batch.labels for batch in batches])
    embeddings_NKD = torch.cat([answer(model, batch, task, source) for batch in batches])
    is_scored = labels_N.is_floating_point()
    found = {"cosine": pair_scores(embeddings_NKD)} if is_scored else retrieve(embeddings_NKD, labels_N)
    values = {name: value.cpu().numpy() for name, value in found.items()}
    return TextScores(values, labels_N.cpu().numpy(), np.arange(len(labels_N)), len(labels_N))


def _example_of_row(batch: Batch, task: Task) -> Tensor:
    """Which example of the batch each row belongs to, `[N]`."""
    rows_N = task.scored_rows(batch)
    return torch.arange(len(batch)) if rows_N is None else rows_N // batch.labels.shape[1]
