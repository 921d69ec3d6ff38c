"""Metrics over N scored rows. Each is `nan` where there is nothing to measure, and never raises for an empty slice."""

# N rows

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

LOWER_IS_BETTER = frozenset({"perplexity", "bits_per_byte"})
SHARES_OF_RIGHT = frozenset({"accuracy", "exact_match", "numeric_match"})  # a row is right or wrong


def accuracy(top1_N: NDArray, gold_N: NDArray) -> float:
    """Share of rows whose most probable class is the gold one."""
    return float(np.mean(top1_N == gold_N)) if len(gold_N) else math.nan


def macro_f1(top1_N: NDArray, gold_N: NDArray) -> float:
    """F1 per class, averaged over the classes that are gold on at least one of these rows.

    A class that is only ever predicted lowers the recall of the classes it was mistaken for, and is no class of its
    own: otherwise one stray prediction would add a class of F1 0, and a slice answer for classes it does not hold.
    """
    if not len(gold_N):
        return math.nan
    return float(f1_score(gold_N, top1_N, labels=np.unique(gold_N), average="macro"))


def perplexity(nll_N: NDArray) -> float:
    """exp of the mean negative log-likelihood (nats) per scored token. Lower is better; `inf` where it overflows."""
    with np.errstate(over="ignore"):
        return float(np.exp(np.mean(nll_N))) if len(nll_N) else math.nan


def bits_per_byte(nll_N: NDArray, num_bytes: int) -> float:
    """Negative log-likelihood (nats) of a text in bits, over the text's UTF-8 bytes. Lower is better.

    Unlike perplexity it does not depend on how the text was cut into tokens.
    """
    return float(np.sum(nll_N) / math.log(2) / num_bytes) if num_bytes else math.nan


def agreement(top1_N: NDArray, teacher_top1_N: NDArray) -> float:
    """Share of rows on which a model and the teacher name the same class first (agreement@1). Needs no gold label."""
    return float(np.mean(top1_N == teacher_top1_N)) if len(top1_N) else math.nan


def retention(value: float, teacher_value: float, metric: str) -> float:
    """Student metric / teacher metric; teacher / student for a metric in `LOWER_IS_BETTER`.

    So 1 is a student as good as its teacher, and more is better, whichever way the metric points.
    """
    numerator, denominator = (teacher_value, value) if metric in LOWER_IS_BETTER else (value, teacher_value)
    return numerator / denominator if denominator else math.nan
