"""Does a model know when it is wrong? Calibration, and accuracy where it may decline to answer."""

# B bins, E examples, N rows

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.evaluation.shares import share, totals
from potstill.evaluation.statistics import Interval, paired_bootstrap

NUM_BINS = 15
COVERAGES = (1.0, 0.9, 0.8)
NUM_RESAMPLES = 1000


def bins(confidence_N: NDArray) -> NDArray[np.int64]:
    """Number of the bin of equal width that each confidence lies in, `[N]`; an upper edge belongs to its bin."""
    return np.clip(np.ceil(confidence_N * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)


def reliability(confidence_N: NDArray, right_N: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Per bin its rows, their mean confidence and their accuracy, which are one line where a model is calibrated."""
    bins_N = bins(confidence_N)
    table = []
    for number in range(NUM_BINS):
        inside = bins_N == number
        count = int(inside.sum())
        table.append(
            {
                "low": number / NUM_BINS,
                "high": (number + 1) / NUM_BINS,
                "n": count,
                "confidence": float(confidence_N[inside].mean()) if count else math.nan,
                "accuracy": float(right_N[inside].mean()) if count else math.nan,
            }
        )
    return table


def expected_calibration_error(
    confidence_N: NDArray, right_N: NDArray[np.bool_], example_N: NDArray[np.int64]
) -> Interval:
    """sum over bins of (rows in the bin / rows) * |accuracy - mean confidence|, with its interval over examples.

    Biased upwards where rows are few: also a calibrated model misses the mean of a bin of five rows. So is each draw of
    the bootstrap. Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning"; 15 bins as in
    Guo et al. 2017, arXiv:1706.04599.
    """
    if not len(right_N) or not np.isfinite(confidence_N).all():
        return Interval(math.nan, math.nan, math.nan, 0)
    gap_N, bins_N = right_N - confidence_N, bins(confidence_N)
    used = np.unique(bins_N)
    gaps = [totals(np.where(bins_N == number, gap_N, 0.0), example_N) for number in used]
    rows_E = totals(np.ones(len(gap_N)), example_N)
    return paired_bootstrap(_calibration_error, [*gaps, rows_E], num_resamples=NUM_RESAMPLES)


def _calibration_error(*columns: NDArray, axis: int = -1) -> NDArray:
    *gaps, rows = columns
    return np.sum([np.abs(gap.sum(axis)) for gap in gaps], axis=0) / rows.sum(axis)


def selective(confidence_N: NDArray, right_N: NDArray[np.bool_], example_N: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Accuracy on the rows of which the model is surest, at each coverage: what it gains by declining the others."""
    surest_first = np.argsort(-confidence_N, kind="stable")  # nan last
    table = []
    for coverage in COVERAGES:
        kept = surest_first[: math.ceil(coverage * len(right_N))]
        found = share(right_N[kept], example_N[kept])
        interval = [found.low, found.high]
        table.append({"coverage": coverage, "n": len(kept), "accuracy": found.value, "interval": interval})
    return table
