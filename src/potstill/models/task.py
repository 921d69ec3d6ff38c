"""What a task makes of a batch: the scored rows and their labels. The label shift lives here and nowhere else."""

# B batch, K texts of an example, L length, N rows

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.data.batch import IGNORE, Batch
from potstill.errors import UserError, nearest_hint
from potstill.signals.protocol import Needs


@dataclass(frozen=True)
class Task:
    """One kind of example.

    auto_class: name of the `transformers` class that loads a model for it.
    is_text: examples are token ids, not pixels.
    is_causal: one row per position whose next token is scored, not one per example; classes are the vocabulary.
    is_embedding: one vector per text, of which an example has K; no classes.
    """

    name: str
    auto_class: str
    is_text: bool
    is_causal: bool = False
    is_embedding: bool = False

    @property
    def output(self) -> Needs:
        """What its models are for."""
        return Needs(embeddings=True) if self.is_embedding else Needs(logits=True)

    def scored_rows(self, batch: Batch) -> Tensor | None:
        """Flat indices `[N]` into B*L of the positions that predict a scored token; None: one row per example."""
        return batch.beside(_numbers(self._predicting(batch.on_host))) if self.is_causal else None

    def row_labels(self, batch: Batch) -> Tensor:
        """Gold class of every row, `[N]`: the next token's id, or the example's label or score (`IGNORE`: none)."""
        host = batch.on_host
        return batch.beside(host.labels[:, 1:][self._predicting(host)[:, :-1]]) if self.is_causal else batch.labels

    def positions(self, batch: Batch) -> Tensor | None:
        """Which positions are attended, bool `[B, L]` or `[B, K, L]`; None for images, which are not padded."""
        if not self.is_text:
            return None
        mask = batch.inputs.get("attention_mask")
        return torch.ones_like(batch.inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()

    def attended(self, batch: Batch) -> Tensor | None:
        """Flat indices `[P]` of the attended positions; None for images."""
        positions = self.positions(batch.on_host)
        return None if positions is None else batch.beside(_numbers(positions))

    def lengths(self, batch: Batch) -> Tensor | None:
        """Attended positions of each example, `[B]`, or of each of its texts, `[B K]`; None for images."""
        attended = self.positions(batch)
        return None if attended is None else attended.flatten(0, -2).sum(dim=1)

    def count_rows(self, batch: Batch) -> dict[str, int]:
        """What the losses of `batch` are divided by, without running a model.

        labelled: rows with a gold label. scored: all rows. positions: attended positions, or images. examples: all
        of them; of embeddings, all texts.
        """
        labels, attended = self.row_labels(batch.on_host), self.positions(batch.on_host)
        return {
            "labelled": int((labels != IGNORE).sum()),
            "scored": len(labels),
            "positions": len(batch) if attended is None else int(attended.sum()),
            "examples": len(batch) if attended is None else attended.shape[:-1].numel(),
        }

    def row_weights(self, batch: Batch) -> dict[str, Tensor]:
        """What a row of each kind counts, in the order of these rows; empty where all count alike."""
        host = batch.on_host
        if host.weights is None:
            return {}
        rows, lengths = host.weights, self.lengths(host)
        if self.is_causal:
            rows = host.weights.unsqueeze(1).expand(host.labels.shape)[self._predicting(host)]
        positions = host.weights if lengths is None else host.weights.repeat_interleave(lengths)
        of_kinds = {"labelled": rows, "scored": rows, "positions": positions, "examples": host.weights}
        return {kind: batch.beside(weights) for kind, weights in of_kinds.items()}

    def _predicting(self, batch: Batch) -> Tensor:
        """Positions whose next token is scored, bool `[B, L]`. Neither the last position nor padding predicts anything.

        Padding stands before the first token of a left-padded text, which nothing predicts in a right-padded one.
        """
        predicting = (batch.labels != IGNORE).roll(-1, dims=1)
        predicting[:, -1:] = False
        attended = self.positions(batch)
        return predicting if attended is None else predicting & attended


def _numbers(chosen: Tensor) -> Tensor:
    return chosen.flatten().nonzero().squeeze(1)


TASKS = {
    task.name: task
    for task in (
        Task("text_classification", "AutoModelForSequenceClassification", is_text=True),
        Task("image_classification", "AutoModelForImageClassification", is_text=False),
        Task("causal_lm", "AutoModelForCausalLM", is_text=True, is_causal=True),
        Task("embedding", "AutoModel", is_text=True, is_embedding=True),
    )
}


def find_task(name: str) -> Task:
    """The task called `name`; UserError where there is none."""
    if name not in TASKS:
        raise UserError("data.task", name, "is no task.", nearest_hint(name, TASKS))
    return TASKS[name]
