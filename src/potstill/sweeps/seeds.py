"""Which differences between groups hold up over seeds."""

# S seeds, C comparisons

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from potstill.evaluation.statistics import CONFIDENCE, Interval, paired_t_interval
from potstill.sweeps.leaderboard import Group

HOLDS_UP = "holds up"
ROUNDING = 1e-6  # of metrics, which are float32


@dataclass(frozen=True)
class Difference:
    """The best group's lead over another. p_value: corrected for the number of comparisons; None without a test."""

    interval: Interval
    p_value: float | None
    verdict: str


def differences(best: Group, others: Sequence[Group], metric: str) -> list[Difference]:
    """`metric` of `best` less that of each other, over the seeds both have."""
    intervals = [_paired(best, other, metric) for other in others]
    tested = [number for number, interval in enumerate(intervals) if _has_spread(interval)]
    corrected = dict(zip(tested, holm([_p_value(intervals[number]) for number in tested]), strict=True))
    return [
        Difference(interval, corrected.get(number), _verdict(interval, corrected.get(number)))
        for number, interval in enumerate(intervals)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """`[C]` p-values such that those below a level keep the chance of any false one below it.

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = largest
    return corrected


def _paired(best: Group, other: Group, metric: str) -> Interval:
    first, second = best.by_seed(metric), other.by_seed(metric)
    common = [seed for seed in first if seed in second]
    return paired_t_interval([first[seed] for seed in common], [second[seed] for seed in common])


def _has_spread(interval: Interval) -> bool:
    """Equal differences, of two seeds that both got one more example right, would pass for certainty."""
    return interval.high - interval.low > ROUNDING


def _p_value(interval: Interval) -> float:
    """Of the two-sided paired t test whose interval this is."""
    freedom = interval.n - 1
    standard_error = (interval.high - interval.low) / 2 / stats.t.ppf((1 + CONFIDENCE) / 2, freedom)
    return float(2 * stats.t.sf(abs(interval.value) / standard_error, freedom))


def _verdict(interval: Interval, p_value: float | None) -> str:
    if interval.n == 0:
        return "no seed in common: no statement"
    if interval.n == 1:
        return "one seed: no statement"
    if p_value is None:
        return f"no spread at {interval.n} seeds: no statement"
    return HOLDS_UP if p_value < 1 - CONFIDENCE else f"not told apart at {interval.n} seeds"
