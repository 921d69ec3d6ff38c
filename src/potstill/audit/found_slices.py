"""Slices that nobody declared: found on one half of the test set, tested on the other."""

# E test items, F columns

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sliceline.slicefinder import Slicefinder

from potstill.audit.rates import p_value_higher, rate
from potstill.data.content import unit_interval
from potstill.evaluation.statistics import CONFIDENCE, holm

SIZE_WEIGHT = 0.95  # of a slice's mean error against its size; as in the paper's experiments
MIN_SHARE = 0.01  # of the half it is found on, and no fewer than
MIN_ITEMS = 10
MAX_CONDITIONS = 2
TARGET = "the teacher is right and the student is wrong"
NUM_CANDIDATES = 50  # of which those that say the same as a better one are left out

Conditions = dict[str, str]


def found_slices(
    columns: Mapping[str, Sequence[str]],
    failed: ArrayLike,
    keys: Sequence[str],
    *,
    target: str = TARGET,
    num_slices: int = 10,
) -> dict[str, Any]:
    """Where failures gather: conjunctions of at most two column values, the clearest first.

    columns: what slices may be made of, one value an item. failed: whether the item failed, `[E]`; target: at what.
    keys: what decides the half an item is in; items of the same text should share one.
    Found by SliceLine (Sagadeeva and Boehm, SIGMOD 2021) on one half; on the other, Fisher's exact test asks whether
    failures are more frequent inside than outside, with Holm's correction for all slices returned. Some slice is found
    in noise, too; it does not hold up.
    """
    failed_E = np.asarray(failed, dtype=bool)
    values_EF = np.array([list(map(str, column)) for column in columns.values()], dtype=object)
    values_EF = values_EF.reshape(len(columns), len(failed_E)).T
    searched_E = np.array([unit_interval(key, "found slices") < 0.5 for key in keys], dtype=bool)
    candidates = _search(values_EF[searched_E], failed_E[searched_E], list(columns))
    chosen = _distinct(candidates, values_EF[searched_E], list(columns))[:num_slices]
    tested = [_tested(conditions, values_EF, failed_E, searched_E, list(columns)) for conditions in chosen]
    tested = [each for each in tested if each["n"]]
    corrected = holm([each["p_value"] for each in tested])
    for each, p_value in zip(tested, corrected, strict=True):
        each |= {"p_holm": p_value, "holds_up": p_value < 1 - CONFIDENCE}
    return {
        "target": target,
        "n_found_on": int(searched_E.sum()),
        "n_tested_on": int((~searched_E).sum()),
        "error_rate": rate(failed_E[~searched_E])["value"],
        "slices": sorted(tested, key=lambda each: (each["p_holm"], each["p_value"], each["name"])),
    }


def _search(values_EF: NDArray, failed_E: NDArray[np.bool_], names: list[str]) -> list[Conditions]:
    if not names or not failed_E.any() or failed_E.all():
        return []  # nothing gathers anywhere
    min_items = max(MIN_ITEMS, math.ceil(MIN_SHARE * len(failed_E)))
    finder = Slicefinder(SIZE_WEIGHT, k=NUM_CANDIDATES, max_l=MAX_CONDITIONS, min_sup=min_items, verbose=False)
    found = finder.fit(values_EF, failed_E.astype(float)).top_slices_
    return [{name: value for name, value in zip(names, row, strict=True) if value is not None} for row in found]  # type: ignore[union-attr]


def _distinct(candidates: list[Conditions], values_EF: NDArray, names: list[str]) -> list[Conditions]:
    """Without a slice inside one ranked before it: `domain=bank` says what `domain=bank & length=short` says."""
    kept: list[tuple[Conditions, NDArray]] = []
    for conditions in candidates:
        inside_E = _inside(conditions, values_EF, names)
        if not any((inside_E <= other_E).all() for _, other_E in kept):
            kept.append((conditions, inside_E))
    return [conditions for conditions, _ in kept]


def _tested(
    conditions: Conditions, values_EF: NDArray, failed_E: NDArray, searched_E: NDArray, names: list[str]
) -> dict[str, Any]:
    inside_E, tested_E = _inside(conditions, values_EF, names), ~searched_E
    tested = rate(failed_E[tested_E & inside_E])
    return {
        "name": " & ".join(f"{name}={value}" for name, value in conditions.items()),
        "conditions": [list(pair) for pair in conditions.items()],
        "n": tested["n"],
        "error_rate": tested["value"],
        "interval": tested["interval"],
        "found_on": rate(failed_E[searched_E & inside_E]),
        "rest": rate(failed_E[tested_E & ~inside_E]),
        "p_value": p_value_higher(failed_E[tested_E], inside_E[tested_E]),
    }


def _inside(conditions: Conditions, values_EF: NDArray, names: list[str]) -> NDArray[np.bool_]:
    matches = [values_EF[:, names.index(name)] == value for name, value in conditions.items()]
    return np.logical_and.reduce(matches)
