"""How far one model is ahead of another on the same examples, with its interval."""

# E examples, N rows

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.evaluation.scores import Scores
from potstill.evaluation.statistics import paired_bootstrap
from potstill.evaluation.texts import TextScores, spearman_difference

Compared = Scores | TextScores


def difference(first: Compared, second: Compared, metric: str) -> dict[str, Any]:
    """`metric` of `first` - `metric` of `second` over their labelled rows, with its 95 % interval.

    metric: the task's main one; of `perplexity` a negative difference speaks for `first`.
    Examples are resampled, not rows, so `n` counts the examples that have a labelled row.
    """
    if isinstance(first, TextScores) and isinstance(second, TextScores) and first.is_scored:
        columns = [first.values["cosine"], second.values["cosine"], first.label]
        interval = paired_bootstrap(spearman_difference, columns)
    else:
        rows_E = _per_example(first, np.ones(len(first.label)))
        scored_E = rows_E > 0
        columns = [_totals(first, metric)[scored_E], _totals(second, metric)[scored_E], rows_E[scored_E]]
        interval = paired_bootstrap(_of_means(np.exp if metric == "perplexity" else np.asarray), columns)
    return {"metric": metric, "value": interval.value, "interval": [interval.low, interval.high], "n": interval.n}


def _totals(scores: Compared, metric: str) -> NDArray[np.float64]:
    """Per example the sum that `metric` averages over rows, `[E]`: rows that are right, nats, or the metric's own."""
    if isinstance(scores, TextScores):
        return _per_example(scores, scores.values[metric])
    return _per_example(scores, scores.nll if metric == "perplexity" else scores.top1 == scores.label)


def _per_example(scores: Compared, values_N: NDArray) -> NDArray[np.float64]:
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
