"""How far one model is ahead of another on the same examples, with its interval."""

# E examples, N rows

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.evaluation.scores import Scores
from potstill.evaluation.statistics import paired_bootstrap


def difference(first: Scores, second: Scores, metric: str) -> dict[str, Any]:
    """`metric` of `first` - `metric` of `second` over their labelled rows, with its 95 % interval.

    metric: `accuracy` or `perplexity` (where a negative difference speaks for `first`).
    Examples are resampled, not rows, so `n` counts the examples that have a labelled row.
    """
    rows_E = _per_example(first, np.ones(len(first.label)))
    scored_E = rows_E > 0
    columns = [_totals(first, metric)[scored_E], _totals(second, metric)[scored_E], rows_E[scored_E]]
    interval = paired_bootstrap(_DIFFERENCE[metric], columns)
    return {"metric": metric, "value": interval.value, "interval": [interval.low, interval.high], "n": interval.n}


def _totals(scores: Scores, metric: str) -> NDArray[np.float64]:
    """Per example the sum that `metric` averages over rows, `[E]`: rows that are right, or nats."""
    return _per_example(scores, scores.nll if metric == "perplexity" else scores.top1 == scores.label)


def _per_example(scores: Scores, values_N: NDArray) -> NDArray[np.float64]:
    labelled = scores.labelled
    weights_N = values_N[labelled].astype(np.float64)
    return np.bincount(scores.example[labelled], weights_N, minlength=scores.num_examples).astype(np.float64)


def _of_means(transform: Callable[[NDArray], NDArray]) -> Callable[..., NDArray]:
    def statistic(first: NDArray, second: NDArray, rows: NDArray, axis: int = -1) -> NDArray:
        num_rows = rows.sum(axis)
        # A perplexity beyond float64 is inf, and two of them differ by nan: reported as not measurable.
        with np.errstate(over="ignore", invalid="ignore"):
            return transform(first.sum(axis) / num_rows) - transform(second.sum(axis) / num_rows)

    return statistic


_DIFFERENCE = {"accuracy": _of_means(np.asarray), "perplexity": _of_means(np.exp)}
