"""What is kept of a sentence encoder's pass over an evaluation set, and what it is measured by."""

# N examples

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

RETRIEVAL = ("ndcg_at_10", "recall_at_10", "accuracy_at_1")


@dataclass(frozen=True)
class TextScores:
    """One model on N examples.

    values: `potstill.retrieval.retrieve` of each query among all N examples, also where fewer queries are chosen; or of
        scored pairs their `cosine`. `[N]` each.
    label: the queries' labels, or the pairs' gold scores, `[N]`.
    example: number of the example, `[N]`. num_examples: of the evaluation set.
    """

    values: dict[str, NDArray]
    label: NDArray
    example: NDArray[np.int64]
    num_examples: int

    @property
    def is_scored(self) -> bool:
        """Pairs with a score, not queries with a label."""
        return "cosine" in self.values

    @property
    def top1(self) -> NDArray:
        """The nearest text of every query, `[N]`."""
        return self.values["nearest"]

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows that have something to be measured by, `[N]`."""
        return np.isfinite(self.label if self.is_scored else self.values[RETRIEVAL[0]])

    def where(self, rows: NDArray[np.bool_]) -> TextScores:
        """The chosen rows; examples keep their numbers."""
        chosen = {name: values[rows] for name, values in self.values.items()}
        return TextScores(chosen, self.label[rows], self.example[rows], self.num_examples)


def measure_texts(scores: TextScores) -> dict[str, Any]:
    """`n` examples, how many of them can be measured, and the mean over those, or Spearman's correlation."""
    counts = {"n": len(scores.label), "num_labelled": int(scores.labelled.sum())}
    if scores.is_scored:
        return counts | {"spearman": spearman(scores.values["cosine"], scores.label)}
    gold = scores.where(scores.labelled)
    return counts | {name: float(gold.values[name].mean()) if len(gold.label) else math.nan for name in RETRIEVAL}


def spearman(cosine_N: NDArray, gold_N: NDArray) -> float:
    """Spearman's rank correlation; `nan` where one of the two is the same everywhere."""
    if any(len(np.unique(values_N)) < 2 for values_N in (cosine_N, gold_N)):
        return math.nan
    return float(spearmanr(cosine_N, gold_N)[0])  # type: ignore[arg-type]


def spearman_over(cosine: NDArray, gold: NDArray, axis: int = -1) -> NDArray:
    """Of one model. Drawn pairs come in rows, over which scipy's own would loop."""
    return (_ranks(cosine, axis) * _ranks(gold, axis)).sum(axis)


def spearman_difference(first: NDArray, second: NDArray, gold: NDArray, axis: int = -1) -> NDArray:
    """Of two models on the same pairs."""
    return ((_ranks(first, axis) - _ranks(second, axis)) * _ranks(gold, axis)).sum(axis)


def _ranks(values: NDArray, axis: int) -> NDArray:
    """Centred, and at length 1: the inner product of two is Spearman's correlation."""
    ranks = rankdata(values, axis=axis)
    centred = ranks - ranks.mean(axis, keepdims=True)
    with np.errstate(invalid="ignore"):  # all alike: nan, reported as not measurable
        return centred / np.linalg.norm(centred, axis=axis, keepdims=True)
