"""Rows whose gold label and teacher do not fit together, the most doubtful first."""

# N items, C classes

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

log = logging.getLogger(__name__)

INSTALL = "pip install 'potstill[audit]'"
CONFIDENT = "cleanlab: confident learning, by the teacher's confidence in the gold label"
PLAIN = f"the teacher's confidence in the gold label, where it prefers another (for confident learning: {INSTALL})"
BY_GOLD = "the teacher names another label; by its confidence in the gold label"
DISAGREEMENT = "the teacher names another label; without its probabilities in no order"


def ranked(
    known: Sequence[int],
    gold: Sequence[str | None],
    teacher: Sequence[str | None],
    probabilities: ArrayLike | None,
    classes: Sequence[str],
    confidence_in_gold: ArrayLike | None = None,
) -> tuple[list[int], str, dict[int, float]]:
    """Numbers of the rows to look at, how they were chosen, and each row's confidence in its gold label.

    known: the rows that have both labels. With cleanlab installed, those whose gold label is likely wrong by confident
    learning (Northcutt, Jiang and Chuang 2021, arXiv:1911.00068); without it, every row on which the teacher prefers
    another label. Both by self-confidence, the probability of the gold label, the smallest first.
    """
    if probabilities is None:
        return _disagreeing(known, gold, teacher, confidence_in_gold)
    if not known:
        return [], PLAIN, {}
    label_N = np.array([classes.index(gold[n] or "") for n in known])
    probability_NC = np.asarray(probabilities, dtype=np.float64)[list(known)]
    confidence_N = probability_NC[np.arange(len(known)), label_N]
    confident = importlib.util.find_spec("cleanlab") is not None
    is_doubtful_N = _label_issues(label_N, probability_NC) if confident else probability_NC.argmax(1) != label_N
    order = [place for place in np.argsort(confidence_N, kind="stable") if is_doubtful_N[place]]
    confidences = {n: float(value) for n, value in zip(known, confidence_N, strict=True)}
    return [known[place] for place in order], CONFIDENT if confident else PLAIN, confidences


def _disagreeing(
    known: Sequence[int],
    gold: Sequence[str | None],
    teacher: Sequence[str | None],
    confidence_in_gold: ArrayLike | None,
) -> tuple[list[int], str, dict[int, float]]:
    found = [n for n in known if gold[n] != teacher[n]]
    if confidence_in_gold is None:
        return found, DISAGREEMENT, {}
    confidences = {n: float(np.asarray(confidence_in_gold)[n]) for n in known}
    return sorted(found, key=lambda n: confidences[n]), BY_GOLD, confidences


def _label_issues(label_N: NDArray[np.int64], probability_NC: NDArray[np.float64]) -> NDArray[np.bool_]:
    """cleanlab counts classes from 0 to the last that occurs; columns of classes that never occur are left out."""
    from cleanlab.filter import find_label_issues  # an extra, and slow to import

    occurring, label_N = np.unique(label_N, return_inverse=True)
    if len(occurring) < 2:
        return probability_NC.argmax(1) != occurring[0]
    probability_NC = probability_NC[:, occurring]
    probability_NC = probability_NC / probability_NC.sum(1, keepdims=True)
    return np.asarray(find_label_issues(label_N, probability_NC, n_jobs=1), dtype=bool)
