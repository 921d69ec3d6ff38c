"""Shares and means over rows, with intervals that know which rows belong together."""

# E examples, N rows

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.evaluation.statistics import Interval, paired_bootstrap, wilson


def share(is_N: NDArray[np.bool_], example_N: NDArray[np.int64]) -> Interval:
    """The share of rows that are so. Wilson's interval where every row is an example of its own, else by examples."""
    if len(np.unique(example_N)) == len(example_N):
        return wilson(int(is_N.sum()), len(is_N))
    return ratio(is_N.astype(float), np.ones(len(is_N)), example_N)


def ratio(numerator_N: NDArray, denominator_N: NDArray, example_N: NDArray[np.int64]) -> Interval:
    """sum / sum over rows, with the bootstrap interval over examples: the rows of one are not independent."""
    columns = [totals(values_N, example_N) for values_N in (numerator_N, denominator_N)]
    return paired_bootstrap(quotient, columns)


def totals(values_N: NDArray, example_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Per example that has rows the sum over them, `[E]`, in the order of examples."""
    _, numbers_N = np.unique(example_N, return_inverse=True)
    return np.bincount(numbers_N, values_N.astype(float)).astype(float)


def quotient(numerator: NDArray, denominator: NDArray, axis: int = -1) -> NDArray:
    with np.errstate(invalid="ignore", divide="ignore"):  # nothing was drawn that counts: nan, not measurable
        return numerator.sum(axis) / denominator.sum(axis)


def as_dict(interval: Interval) -> dict[str, Any]:
    return {"value": interval.value, "interval": [interval.low, interval.high], "n": interval.n}
