"""Rates of an event: their intervals, and whether a slice's is higher than the rest's."""

# N items

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from potstill.evaluation.statistics import CONFIDENCE


def rate(happened_N: NDArray[np.bool_]) -> dict[str, Any]:
    """`n`, `count`, `value` (the rate) and its 95 % interval (Wilson 1927); None for what no item can tell."""
    n, count = len(happened_N), int(np.sum(happened_N))
    if not n:
        return {"n": 0, "count": 0, "value": None, "interval": [None, None]}
    interval = stats.binomtest(count, n).proportion_ci(CONFIDENCE, method="wilson")
    return {"n": n, "count": count, "value": count / n, "interval": [float(interval.low), float(interval.high)]}


def p_value_higher(happened_N: NDArray[np.bool_], inside_N: NDArray[np.bool_]) -> float:
    """Of the rate inside being no higher than outside (Fisher's exact test); 1 where one is empty."""
    table = [[int(np.sum(happened_N & side)), int(np.sum(~happened_N & side))] for side in (inside_N, ~inside_N)]
    return float(stats.fisher_exact(table, alternative="greater").pvalue)  # type: ignore[attr-defined]
