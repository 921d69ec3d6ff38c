"""The structure behind `comparison.json`: the terminal table and the page show nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from potstill.sweeps.importance import importances
from potstill.sweeps.leaderboard import Group, choose_cost, choose_metric, front, grouped, is_higher_better, ranked
from potstill.sweeps.results import Result
from potstill.sweeps.seeds import Difference, differences
from potstill.sweeps.varying import Varying, short_names, varying

SCHEMA_VERSION = 1


def compare(
    results: Sequence[Result],
    *,
    metric: str | None = None,
    cost: str | None = None,
    higher_is_better: bool | None = None,
) -> dict[str, Any]:
    """Rank finished runs, seeds of one config together. Returns what `comparison.json` holds.

    The rest of the runs are listed with the reason why they are not ranked. Raises UserError for a metric or a cost
    that no finished run has.
    """
    metric, cost = choose_metric(results, metric), choose_cost(results, cost)
    higher = is_higher_better(metric, higher_is_better)
    finished = [each for each in results if each.status == "finished" and metric in each.metrics]
    board = ranked(grouped(finished), metric, higher_is_better=higher)
    groups = [group for _, group in board]
    vary = varying(finished)
    leads = [None, *differences(groups[0], groups[1:], metric)] if groups else []
    on_front = _front(groups, metric, cost, higher)
    rows = [
        _group(place, group, vary, metric, lead) | {"is_on_front": is_on_front}
        for (place, group), lead, is_on_front in zip(board, leads, on_front, strict=True)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "metric": metric,
        "higher_is_better": higher,
        "cost": cost,
        "keys": short_names(vary.shown),
        "implied_keys": vary.implied,
        "notes": _notes(finished, groups, metric),
        "groups": rows,
        "not_ranked": [_not_ranked(each, metric) for each in results if each not in finished],
        "importance": importances(finished, vary.shown, metric),
        "runs": [_run(each, vary) for each in results],
    }


def _group(place: int, group: Group, vary: Varying, metric: str, lead: Difference | None) -> dict[str, Any]:
    names = dict.fromkeys(name for run in group.runs for name in run.metrics)
    return {
        "place": place,
        "runs": [run.name for run in group.runs],
        "values": vary.values(group.runs[0]),
        "num_seeds": len(group.by_seed(metric)),
        "mean": group.mean(metric),
        "deviation": group.deviation(metric),
        "means": {name: group.mean(name) for name in names},
        "best_leads_by": lead and _lead(lead),
    }


def _lead(lead: Difference) -> dict[str, Any]:
    bounds = {name: value if math.isfinite(value) else None for name, value in asdict(lead.interval).items()}
    return bounds | {"p_value": lead.p_value, "verdict": lead.verdict}


def _run(result: Result, vary: Varying) -> dict[str, Any]:
    wanted = ("name", "place", "status", "overrides", "seed", "metrics", "worst_slice")
    return {name: getattr(result, name) for name in wanted} | {"values": vary.values(result)}


def _not_ranked(result: Result, metric: str) -> dict[str, Any]:
    reason = f"has no {metric}" if result.status == "finished" else result.reason
    return {"run": result.name, "status": result.status, "reason": reason, "overrides": result.overrides}


def _front(groups: Sequence[Group], metric: str, cost: str | None, higher: bool) -> list[bool | None]:
    if cost is None:
        return [None] * len(groups)
    return [*front([(group.mean(cost), group.mean(metric)) for group in groups], higher_is_better=higher)]


def _notes(finished: Sequence[Result], groups: Sequence[Group], metric: str) -> list[str]:
    """What a reader has to know before the first number."""
    notes = []
    counts = [len(group.by_seed(metric)) for group in groups]
    if len(groups) > 1 and max(counts) == 1:
        notes.append(
            "One seed: nothing here says whether a difference would hold up with another. "
            "For that, run again with seed=0,1,2."
        )
    if counts and min(counts) < max(counts):
        notes.append(
            f"Between {min(counts)} and {max(counts)} seeds: a single lucky one can lead the means of several."
        )
    if metric.startswith("evaluation/"):
        notes.append("Ranked on test data: what is chosen here has no fair test left.")
    by_seed: dict[int | None, set[str | None]] = {}
    for each in finished:
        by_seed.setdefault(each.seed, set()).add(each.data)
    if any(len(kinds) > 1 for kinds in by_seed.values()):
        notes.append("Not all of these were validated on the same data: such numbers do not compare.")
    return notes
