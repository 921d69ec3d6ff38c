"""How far a teacher can be trusted: its errors on gold by slice, labels that contradict each other, rows to look at."""

# N labelled items, C classes

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from potstill.audit.rates import p_value_higher, rate
from potstill.audit.review import ranked
from potstill.audit.texts import normalise
from potstill.evaluation.statistics import CONFIDENCE, holm

MAX_REVIEW = 500


def teacher_quality(
    texts: Sequence[str],
    gold: Sequence[str | None],
    teacher: Sequence[str | None],
    slices: Mapping[str, Sequence[str]],
    *,
    probabilities: ArrayLike | None = None,
    classes: Sequence[str] = (),
    confidence_in_gold: ArrayLike | None = None,
    max_review: int = MAX_REVIEW,
) -> dict[str, Any]:
    """Where the teacher disagrees with gold, and which of the two to look at.

    gold, teacher: labels by name; None where there is none, and such items are left out. slices: per column one value
    an item. probabilities: the teacher's, `[N, C]`, in the order of `classes`; or of them what it gives
    to the gold label, `confidence_in_gold`, `[N]`. Without either, rows are in no order.
    Returns JSON types. `slices`, the worst first: the error rate inside, and how likely it is by chance (Fisher's exact
    test against the items outside, one-sided, Holm's correction over all slices). `named`: the slices that are worse
    beyond chance. `conflicts`: texts, the same after normalisation, under different gold labels. `review`: rows, the
    most doubtful first.
    """
    known = [n for n, pair in enumerate(zip(gold, teacher, strict=True)) if None not in pair]
    wrong_N = np.array([gold[n] != teacher[n] for n in known], dtype=bool)
    by_slice = _slices(wrong_N, {name: [values[n] for n in known] for name, values in slices.items()})
    order, method, doubts = ranked(known, gold, teacher, probabilities, classes, confidence_in_gold)
    return {
        "overall": rate(wrong_N),
        "slices": by_slice,
        "named": [each["slice"] for each in by_slice if each["is_worse"]],
        "conflicts": conflicts(texts, gold),
        "review_method": method,
        "num_review": len(order),
        "review": [_row(n, texts, gold, teacher, slices, doubts) for n in order[:max_review]],
    }


def conflicts(texts: Sequence[str], labels: Sequence[str | None]) -> list[dict[str, Any]]:
    """Texts, the same after normalisation, that stand under more than one label; most often first."""
    items = defaultdict(list)
    for number, text in enumerate(texts):
        if labels[number] is not None and (normalised := normalise(text)):
            items[normalised].append(number)
    found = [
        {
            "text": texts[numbers[0]],
            "labels": dict(sorted(Counter(str(labels[number]) for number in numbers).items())),
            "items": numbers,
        }
        for numbers in items.values()
    ]
    return sorted((each for each in found if len(each["labels"]) > 1), key=lambda each: -len(each["items"]))


def _slices(wrong_N: NDArray[np.bool_], columns: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    masks = {
        f"{name}={value}": np.array([each == value for each in values], dtype=bool)
        for name, values in columns.items()
        for value in sorted(set(values))
    }
    p_values = [p_value_higher(wrong_N, inside_N) for inside_N in masks.values()]
    found = [
        {
            "slice": name,
            **rate(wrong_N[inside_N]),
            "p_value": p_value,
            "p_holm": corrected,
            "is_worse": corrected < 1 - CONFIDENCE,
        }
        for (name, inside_N), p_value, corrected in zip(masks.items(), p_values, holm(p_values), strict=True)
    ]
    return sorted(found, key=lambda each: (each["p_holm"], each["p_value"], each["slice"]))


def _row(
    number: int,
    texts: Sequence[str],
    gold: Sequence[str | None],
    teacher: Sequence[str | None],
    slices: Mapping[str, Sequence[str]],
    doubts: Mapping[int, float],
) -> dict[str, Any]:
    """doubts: of a row, the probability that the teacher gives to its gold label."""
    return {
        "item": number,
        "text": texts[number],
        "gold": gold[number],
        "teacher": teacher[number],
        "confidence_in_gold": round(doubts[number], 6) if number in doubts else None,
        **{name: values[number] for name, values in slices.items()},
    }
