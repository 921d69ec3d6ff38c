"""What a model says on every scored row of an evaluation set, in one pass and without keeping its logits."""

# N rows, C classes

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from potstill.data.batch import IGNORE, Batch
from potstill.evaluation.scores import NO_ANSWER, Scores
from potstill.evaluation.texts import RETRIEVAL, TextScores
from potstill.losses.divergence import forward_kl
from potstill.models.forward import forward
from potstill.models.task import Task
from potstill.retrieval import pair_scores, retrieve
from potstill.signals.protocol import SignalSource


@dataclass(frozen=True)
class ModelUnderTest:
    """A model, where it came from, and its column for each of the data's labels (None where they are in order).

    source: what answers in the place of `model`, where that is several or none; columns are in order.
    """

    model: nn.Module
    path: str | None = None
    label_order: Sequence[int] | None = None
    source: SignalSource | None = None


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
    """Score every row of `batches` on the model's device, of one model alone."""
    return predict_all({"model": ModelUnderTest(model, label_order=label_order, source=source)}, batches, task)["model"]


def predict_all(
    models: Mapping[str, ModelUnderTest], batches: Iterable[Batch], task: Task
) -> dict[str, Scores] | dict[str, TextScores]:
    """Score every row of `batches`, each model on its device, all of them against the one called `teacher`.

    batches: read once for classes and tokens, whose logits are compared batch by batch and never kept; of embeddings
        once per model.
    """
    with ExitStack() as stack:
        for tested in models.values():
            stack.enter_context(inference(tested.model))
        if task.is_embedding:
            return {name: _score_texts(tested, batches, task) for name, tested in models.items()}
        found = [_score_all(models, batch, task) for batch in batches]
    return {name: Scores.joined([scores[name] for scores in found]) for name in models}


def answer(model: nn.Module, batch: Batch, task: Task, source: SignalSource | None) -> Tensor:
    """Logits of every scored row, `[N, C]`, or embeddings, `[N, K, D]`."""
    output = source.signal(batch, task.output) if source else forward(model, batch, task, task.output)
    given = output.embeddings if task.is_embedding else output.logits
    assert given is not None
    return given


def _score_all(models: Mapping[str, ModelUnderTest], batch: Batch, task: Task) -> dict[str, Scores]:
    label_N, example_N = task.row_labels(batch), _example_of_row(batch, task)
    teacher = models.get("teacher")
    teacher_NC = None if teacher is None else _log_probabilities(teacher, batch, task)
    scores = {}
    for name, tested in models.items():
        logits_NC = teacher_NC if name == "teacher" else None
        logits_NC = _log_probabilities(tested, batch, task) if logits_NC is None else logits_NC
        columns = _columns(logits_NC, None if name == "teacher" else teacher_NC, label_N)
        arrays = {key: value.cpu().numpy() for key, value in columns.items()}
        scores[name] = Scores(
            **arrays, label=label_N.cpu().numpy(), example=example_N.cpu().numpy(), num_examples=len(batch)
        )
    return scores


def _log_probabilities(tested: ModelUnderTest, batch: Batch, task: Task) -> Tensor:
    """`[N, C]` in the order of the data's labels, at the batch's place."""
    device = next(tested.model.parameters()).device
    logits_NC = answer(tested.model, batch.to(device), task, tested.source)
    if tested.label_order is not None:
        logits_NC = logits_NC[:, list(tested.label_order)]
    return logits_NC.float().log_softmax(-1).to(batch.labels.device)


def _columns(model_NC: Tensor, teacher_NC: Tensor | None, label_N: Tensor) -> dict[str, Tensor]:
    """The columns of `Scores` that come of log-probabilities."""
    is_finite_N = ~model_NC.isnan().any(-1)
    nll_N = nll_loss(model_NC, label_N, ignore_index=IGNORE, reduction="none").double()
    nll_N = nll_N.masked_fill(label_N == IGNORE, torch.nan)  # nll_loss gives 0, which would pass for certainty
    kl_N = top5_N = torch.full_like(nll_N, torch.nan)
    if teacher_NC is not None:
        kl_N, top5_N = forward_kl(model_NC, teacher_NC, temperature=1.0).double(), _top5_overlap(model_NC, teacher_NC)
    return {
        "top1": model_NC.argmax(-1).masked_fill(~is_finite_N, NO_ANSWER),
        "nll": nll_N.masked_fill(~is_finite_N, torch.nan),
        "confidence": model_NC.amax(-1).exp().double(),
        "entropy": torch.special.entr(model_NC.exp()).sum(-1).double(),
        "kl": kl_N,
        "top5": top5_N.masked_fill(~is_finite_N, torch.nan),
    }


def _top5_overlap(model_NC: Tensor, teacher_NC: Tensor) -> Tensor:
    num_first = min(5, model_NC.shape[-1])
    first_NK, teacher_first_NK = (each.topk(num_first, -1).indices for each in (model_NC, teacher_NC))
    shared_NKK = first_NK.unsqueeze(-1) == teacher_first_NK.unsqueeze(-2)
    return shared_NKK.any(-1).double().mean(-1)


def _score_texts(tested: ModelUnderTest, batches: Iterable[Batch], task: Task) -> TextScores:
    device = next(tested.model.parameters()).device
    moved = [batch.to(device) for batch in batches]
    if not moved:
        return TextScores(dict.fromkeys((*RETRIEVAL, "nearest"), np.empty(0)), np.empty(0), np.empty(0, np.int64), 0)
    labels_N = torch.cat([batch.labels for batch in moved])
    embeddings_NKD = torch.cat([answer(tested.model, batch, task, tested.source) for batch in moved])
    is_scored = labels_N.is_floating_point()
    found = {"cosine": pair_scores(embeddings_NKD)} if is_scored else retrieve(embeddings_NKD, labels_N)
    values = {name: value.cpu().numpy() for name, value in found.items()}
    return TextScores(values, labels_N.cpu().numpy(), np.arange(len(labels_N)), len(labels_N))


def _example_of_row(batch: Batch, task: Task) -> Tensor:
    """Which example of the batch each row belongs to, `[N]`."""
    rows_N = task.scored_rows(batch)
    return torch.arange(len(batch)) if rows_N is None else rows_N // batch.labels.shape[1]
