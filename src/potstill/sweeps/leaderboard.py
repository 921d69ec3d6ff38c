"""Runs in the order of one metric, seeds of the same config together, and those that give most for their cost."""

# S seeds

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from potstill.errors import UserError, nearest_hint
from potstill.evaluation.metrics import LOWER_IS_BETTER
from potstill.evaluation.ranking import SHARES
from potstill.sweeps.results import Result
from potstill.sweeps.varying import identity

METRICS = (
    *("val/accuracy", "val/ndcg_at_10", "val/spearman", "val/loss"),
    *("evaluation/accuracy", "evaluation/ndcg_at_10", "evaluation/spearman", "evaluation/perplexity"),
)
# By the last part of a metric's name; what begins with cost/ costs.
HIGHER = SHARES | {"spearman"}
LOWER = LOWER_IS_BETTER | {"loss", "kl", "seconds", "parameters", "model_bytes", "latency_ms_p50", "latency_ms_p95"}


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    runs: list[Result]

    def by_seed(self, metric: str) -> dict[int | None, float]:
        """Seed -> value; of runs with one seed their mean, so that a repeated seed counts once."""
        values: dict[int | None, list[float]] = {}
        for run in self.runs:
            if metric in run.metrics:
                values.setdefault(run.seed, []).append(run.metrics[metric])
        return {seed: statistics.fmean(each) for seed, each in values.items()}

    def mean(self, metric: str) -> float | None:
        """Over seeds."""
        values = self.by_seed(metric).values()
        return statistics.fmean(values) if values else None

    def deviation(self, metric: str) -> float | None:
        """Standard deviation over seeds; None below two."""
        values = self.by_seed(metric).values()
        return statistics.stdev(values) if len(values) > 1 else None


def choose_metric(results: Sequence[Result], asked: str | None) -> str:
    """`asked` or else the first of METRICS that a finished run has. Raises UserError where none has what was asked."""
    return _choose(results, asked, "metric", METRICS) or METRICS[0]


def choose_cost(results: Sequence[Result], asked: str | None) -> str | None:
    """`asked`, or the number of parameters; None where nothing was asked for and no run has that."""
    return _choose(results, asked, "cost", ["cost/parameters"])


def is_higher_better(metric: str, asked: bool | None = None) -> bool:
    """`asked` or, where that is None, what the name says. Raises UserError where it says nothing."""
    name = metric.rpartition("/")[2]
    if asked is None and name not in HIGHER | LOWER:
        problem = "does not say by its name whether more of it is better; the ranking could be upside down."
        raise UserError("metric", metric, problem, "Say it: higher_is_better=true, or false")
    return name in HIGHER if asked is None else asked


def grouped(results: Iterable[Result]) -> list[Group]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(identity(result), []).append(result)
    return [Group(runs) for runs in groups.values()]


def ranked(groups: Iterable[Group], metric: str, *, higher_is_better: bool) -> list[tuple[int, Group]]:
    """Place and group, the best mean first; groups of the same mean share a place."""
    sign = -1 if higher_is_better else 1
    ordered = sorted(groups, key=lambda group: sign * (group.mean(metric) or 0.0))
    means = [group.mean(metric) for group in ordered]
    return [(means.index(mean) + 1, group) for mean, group in zip(means, ordered, strict=True)]


def front(points: Sequence[tuple[float | None, float | None]], *, higher_is_better: bool) -> list[bool]:
    """For each (cost, quality): that none other is at least as good in both, and better in one. Less cost is better."""
    sign = -1 if higher_is_better else 1
    keyed = [
        (math.inf, math.inf) if cost is None or quality is None else (cost, sign * quality) for cost, quality in points
    ]
    return [
        cost < math.inf and not any(c <= cost and q <= quality and (c, q) != (cost, quality) for c, q in keyed)
        for cost, quality in keyed
    ]


def _choose(results: Sequence[Result], asked: str | None, key: str, default: Sequence[str]) -> str | None:
    known = dict.fromkeys(name for each in results if each.status == "finished" for name in each.metrics)
    if asked is None:
        return next((name for name in default if name in known), None)
    if known and asked not in known:
        raise UserError(key, asked, "is no metric of these runs.", nearest_hint(asked, known))
    return asked
