"""How far one model is ahead of another on the same examples, with its interval."""

# E examples, N rows

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.evaluation.metrics import SHARES_OF_RIGHT
from potstill.evaluation.scores import Scores
from potstill.evaluation.shares import as_dict
from potstill.evaluation.statistics import Interval, holm, mcnemar, paired_bootstrap, paired_shares, smallest_difference
from potstill.evaluation.texts import TextScores, spearman_difference

Compared = Scores | TextScores


def difference(
    first: Compared, second: Compared, metric: str, slices: Mapping[str, NDArray[np.bool_]] | None = None
) -> dict[str, Any]:
    """`metric` of `first` - `metric` of `second` over their labelled rows: overall, and on each of the `slices`.

    metric: the task's main one; of `perplexity` a negative difference speaks for `first`. slices: masks over examples.
    Examples are resampled, not rows, so `n` counts the examples that have a labelled row. Where an example is one row
    that is right or wrong, McNemar's exact test says whether the difference may be chance, adjusted over slices.
    """
    interval = difference_interval(first, second, metric)
    p_value, discordant = _mcnemar(first, second, metric)
    by_slice = {}
    for name, mask_E in (slices or {}).items():
        inside = [each.where(mask_E[each.example]) for each in (first, second)]
        found = difference_interval(inside[0], inside[1], metric)
        by_slice[name] = {**as_dict(found), "p_value": _mcnemar(inside[0], inside[1], metric)[0]}
    _adjust(by_slice)
    smallest = smallest_difference(interval)
    return {
        "metric": metric,
        **as_dict(interval),
        "p_value": p_value,
        "discordant": discordant,
        "smallest": smallest,
        "slices": by_slice,
    }


def difference_interval(first: Compared, second: Compared, metric: str) -> Interval:
    """By the table of right and wrong where an example is one or the other, else by bootstrap over examples."""
    if isinstance(first, TextScores) and isinstance(second, TextScores) and first.is_scored:
        columns = [first.values["cosine"], second.values["cosine"], first.label]
        return paired_bootstrap(spearman_difference, columns)
    (first_E, rows_E), (second_E, _) = per_example(first, metric), per_example(second, metric)
    if is_right_or_wrong(first, metric):
        return paired_shares(first_E > 0, second_E > 0)
    transform = np.exp if metric == "perplexity" else np.asarray
    return paired_bootstrap(_of_means(transform), [first_E, second_E, rows_E])


def per_example(scores: Compared, metric: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each example with a labelled row, `[E]`: the sum that `metric` averages (rows that are right, nats, or the
    metric's own), and how many rows that are.
    """
    if isinstance(scores, TextScores):
        values_N = scores.values[metric]
    else:
        values_N = scores.nll if metric == "perplexity" else scores.right
    rows_E = _sums(scores, np.ones(len(scores.label)))
    scored_E = rows_E > 0
    return _sums(scores, values_N)[scored_E], rows_E[scored_E]


def is_right_or_wrong(scores: Compared, metric: str) -> bool:
    """Every example is one row, and `metric` counts those that are right."""
    counts_right = isinstance(scores, Scores) and metric in SHARES_OF_RIGHT
    return counts_right and bool((per_example(scores, metric)[1] == 1).all())


def _mcnemar(first: Compared, second: Compared, metric: str) -> tuple[float | None, list[int] | None]:
    if not is_right_or_wrong(first, metric) or not len(first.label):
        return None, None
    return mcnemar(*(per_example(each, metric)[0] > 0 for each in (first, second)))


def _adjust(by_slice: dict[str, dict[str, Any]]) -> None:
    tested = [name for name, found in by_slice.items() if found["p_value"] is not None]
    for found in by_slice.values():
        found["p_holm"] = None
    for name, adjusted in zip(tested, holm([by_slice[name]["p_value"] for name in tested]), strict=True):
        by_slice[name]["p_holm"] = adjusted


def _sums(scores: Compared, values_N: NDArray) -> NDArray[np.float64]:
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
