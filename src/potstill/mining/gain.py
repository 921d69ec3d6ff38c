"""What a round gained and lost on items that were not mined, and whether another is worth its cost."""

# E items that are held back

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.audit.rates import rate
from potstill.evaluation.compare import difference
from potstill.evaluation.scores import Scores

METRIC = "accuracy"


def gain(
    scores: Mapping[str, Scores], columns: Mapping[str, Sequence[str]], clusters: Sequence[int | None]
) -> dict[str, Any]:
    """scores: of `teacher`, `before` and `after` on the same E items. columns: slices, one value an item. clusters: the
    mined cluster that each item is nearest to.

    Returns JSON types. `difference` is after - before with McNemar's exact test; its `slices` are those of `columns`,
    the greatest loss first. A failure: the teacher is right and the student is wrong.
    """
    after, before = scores["after"], scores["before"]
    masks = {
        f"{name}={value}": np.array([each == value for each in values], dtype=bool)
        for name, values in columns.items()
        for value in sorted(set(values))
    }
    found = difference(after, before, METRIC, masks)
    by_slice = found.pop("slices")
    slices = [{"slice": name, **each} for name, each in by_slice.items() if each["value"] is not None]
    failed = {name: scores["teacher"].right & ~scores[name].right & after.labelled for name in ("before", "after")}
    return {
        "n": int(after.labelled.sum()),
        METRIC: {name: _share(each.right[each.labelled]) for name, each in scores.items()},
        "difference": found,
        "failures": {name: rate(failed_E) for name, failed_E in failed.items()},
        "slices": sorted(slices, key=lambda each: (each["value"], each["slice"])),
        "clusters": _clusters(failed, clusters),
    }


def is_gain(found: Mapping[str, Any], alpha: float) -> bool:
    """Whether a `difference` is one for the better, and more than chance."""
    return found["value"] > 0 and found["p_value"] <= alpha


def why_stop(
    gained: Mapping[str, Any], *, left: int | None, in_pool: int | None, alpha: float, gone: float
) -> str | None:
    """Why no other round should follow, in words; None where one should.

    left: proposals that the budget still has; in_pool: items that were not taken; None where nobody counts.
    """
    found = gained["difference"]
    if not is_gain(found, alpha):
        return f"no gain that is more than chance (p={found['p_value']:.3g}, alpha={alpha:g})"
    if left is not None and left <= 0:
        return "the budget is used up"
    if in_pool is not None and in_pool <= 0:
        return "the pool is used up"
    worst = gained["clusters"][0] if gained["clusters"] else None
    if worst and worst["after"]["value"] < gone:
        return f"the cluster that was worst is gone ({100 * worst['after']['value']:.1f} % failures)"
    return None


def _clusters(failed: Mapping[str, NDArray[np.bool_]], clusters: Sequence[int | None]) -> list[dict[str, Any]]:
    """Of the held-back items nearest to each cluster the failures, those first that had most of them before."""
    found = []
    for number in sorted({each for each in clusters if each is not None}):
        inside_E = np.array([each == number for each in clusters], dtype=bool)
        found.append({"cluster": number, **{name: rate(failed_E[inside_E]) for name, failed_E in failed.items()}})
    return sorted(found, key=lambda each: (-each["before"]["count"], each["cluster"]))


def _share(right_E: NDArray[np.bool_]) -> float | None:
    return float(right_E.mean()) if len(right_E) else None
