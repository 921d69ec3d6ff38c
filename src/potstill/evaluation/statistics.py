"""Intervals and tests: of shares, of paired differences over the examples of a test set, and over the seeds of runs."""

# E examples, S seeds, T tests

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8  # of the smallest difference that a test can be expected to show
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
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        # a draw without anything to measure is nan, and then so are the bounds
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
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


def wilson(num_right: int, n: int) -> Interval:
    """Wilson's score interval of a share. Unlike the usual one it holds at few items, and at shares near 0 and 1.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0)
    low, high = stats.binomtest(num_right, n).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(num_right / n, float(low), float(high), n)


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, list[int]]:
    """Exact two-sided p-value that two models are right equally often on the same items, `[E]` each.

    Also the items on which only the first and only the second is right: no other says anything.
    McNemar 1947, in its exact form: those items are a fair coin under the hypothesis.
    """
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return p_value, [only_first, only_second]


def paired_shares(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Interval:
    """The difference of two models' shares of right answers on the same items, `[E]` each, with its interval.

    Wald's with half an item more in each cell of the 2 x 2 table, so that it holds where few items differ, and does not
    claim certainty where none does. Agresti and Min 2005, "Simple improved confidence intervals for comparing matched
    proportions", section 3.
    """
    n = len(first)
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    value = (only_first - only_second) / n if n else math.nan
    if n < 2:
        return Interval(value, math.nan, math.nan, n)
    centre = (only_first - only_second) / (n + 2)
    variance = (only_first + only_second + 1) / (n + 2) ** 2 - centre**2 / (n + 2)
    half_width = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return Interval(value, max(-1.0, centre - half_width), min(1.0, centre + half_width), n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, `[T]`: at most `alpha` of a chance that any true hypothesis has one below `alpha`."""
    ascending = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(1, np.maximum.accumulate(factors * np.asarray(p_values, dtype=float)[ascending]))
    return adjusted[np.argsort(ascending, kind="stable")].tolist()


def standard_error(interval: Interval) -> float:
    """Of a normal whose 95 % interval is as wide."""
    return (interval.high - interval.low) / (2 * float(stats.norm.ppf((1 + CONFIDENCE) / 2)))


def p_worse_than(interval: Interval, threshold: float) -> float:
    """One-sided p-value of the hypothesis that the true value is `threshold` or more; `nan` without an interval.

    By the normal whose interval is as wide. An interval of no width has no doubt: 0 or 1.
    """
    error = standard_error(interval)
    if not error:
        return float(interval.value >= threshold)
    return float(stats.norm.cdf((interval.value - threshold) / error))


def smallest_difference(interval: Interval) -> float:
    """The smallest true difference that a two-sided test on these pairs shows four times in five; `nan` if unknown."""
    error = standard_error(interval)
    if not error:  # no pair differs, so nothing is known of how much pairs differ
        return math.nan
    return float(stats.norm.ppf((1 + CONFIDENCE) / 2) + stats.norm.ppf(POWER)) * error
