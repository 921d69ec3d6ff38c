"""Intervals of paired differences: over the examples of one test set, and over the seeds of one experiment."""

# E examples, S seeds

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
MAX_ELEMENTS_PER_DRAW = 2**21  # of the index table held at once, 8 bytes each


@dataclass(frozen=True)
class Interval:
    """A difference and its 95 % interval over `n` pairs; the bounds are `nan` where it has none: below two pairs."""

    value: float
    low: float
    high: float
    n: int


def paired_bootstrap(
    difference: Callable[..., NDArray],
    columns: Sequence[NDArray],
    *,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic that compares two models on the same examples.

    columns: arrays `[E]`, one entry an example. Examples are drawn with all their columns: both models of a draw are
        judged on the same ones, and the rows of an example (the tokens of a text), not independent, stay together.
    difference: called with the columns and `axis`; returns the statistic reduced over that axis.

    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", 13.3.
    """
    num_examples = len(columns[0])
    value = float(difference(*columns, axis=-1)) if num_examples else math.nan
    if num_examples < 2 or not math.isfinite(value):
        return Interval(value, math.nan, math.nan, num_examples)
    result = stats.bootstrap(
        tuple(columns),
        difference,
        paired=True,
        vectorized=True,
        method="percentile",
        confidence_level=CONFIDENCE,
        n_resamples=num_resamples,
        batch=max(1, MAX_ELEMENTS_PER_DRAW // num_examples),
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(value, float(low), float(high), num_examples)


def paired_t_interval(first: ArrayLike, second: ArrayLike) -> Interval:
    """Student's t interval of the mean of `first - second`, `[S]` each, entry i of both from the same seed.

    Equal differences in every seed give an interval of no width.
    Raises ValueError where the two are not of one length.
    """
    first_S, second_S = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first_S.shape != second_S.shape:
        raise ValueError(f"{first_S.size} and {second_S.size} values cannot be paired")
    differences_S = first_S - second_S
    num_seeds = differences_S.size
    value = float(differences_S.mean()) if num_seeds else math.nan
    if num_seeds < 2:
        return Interval(value, math.nan, math.nan, num_seeds)
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, num_seeds - 1) * stats.sem(differences_S))
    return Interval(value, value - half_width, value + half_width, num_seeds)
