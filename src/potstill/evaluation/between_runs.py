"""Evaluated runs side by side on one test set, and which differences between their students hold up."""

# E examples

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.data.batch import IGNORE
from potstill.evaluation.answers import OF_ANSWERS
from potstill.evaluation.compare import Compared, difference
from potstill.evaluation.ranking import costs, main_model
from potstill.evaluation.scores import NO_ANSWER, Scores
from potstill.evaluation.statistics import holm
from potstill.evaluation.texts import RETRIEVAL, TextScores

SCHEMA_VERSION = 1
UNPAIRED = "spearman"  # is of scores that are not on record by item
RIGHT = 0  # the class that stands for the gold one, where only right and wrong are on record


@dataclass(frozen=True)
class Evaluated:
    """A run that was evaluated. evaluation: its `evaluation.json`. items: the lines of its `items.jsonl`, in order."""

    name: str
    place: str
    evaluation: Mapping[str, Any]
    items: Sequence[Mapping[str, Any]]

    @property
    def model(self) -> str:
        return main_model(dict(self.evaluation))


def side_by_side(runs: Sequence[Evaluated], alpha: float = 0.05) -> dict[str, Any]:
    """runs: two or more on the same test set (`sweeps.evaluated` sees to that), with the slices that all of them have.

    Returns JSON types. `pairs`: of every two runs the first's student minus the second's, on the same items;
    `p_holm` is adjusted over the pairs, that of a slice over the slices of its pair.
    """
    first = runs[0].evaluation
    metric = first["metric"]
    shared = [name for name in first["slices"] if all(name in run.evaluation["slices"] for run in runs)]
    pairs = [_pair(one, other, metric, shared) for one, other in combinations(runs, 2)] if metric != UNPAIRED else []
    tested = [pair for pair in pairs if pair["p_value"] is not None]
    for pair, p_value in zip(tested, holm([pair["p_value"] for pair in tested]), strict=True):
        pair["p_holm"] = p_value
    for pair in pairs:
        pair["holds_up"] = _holds_up(pair, alpha)
    return {
        "schema_version": SCHEMA_VERSION,
        "metric": metric,
        "higher_is_better": first["higher_is_better"],
        "data": first["data"],
        "runs": [_about(run, shared) for run in runs],
        "pairs": pairs,
    }


def _about(run: Evaluated, slices: Sequence[str]) -> dict[str, Any]:
    evaluation, report = run.evaluation, run.evaluation["models"][run.model]
    known = evaluation["provenance"]["runs"].get(run.model) or {}
    metric, against = evaluation["metric"], report["overall"].get("against_teacher") or {}
    return {
        "name": run.name,
        "place": run.place,
        "model": run.model,
        "seed": known.get("seed"),
        "verdict": evaluation["verdict"]["outcome"],
        "bar": (evaluation.get("bar") or {}).get("name"),
        "value": report["overall"][metric],
        "interval": report["overall"]["interval"],
        "retention": against.get("retention"),
        "agreement": against.get("agreement"),
        "ece": (report["overall"].get("calibration") or {}).get("ece"),
        "worst_slice": report["worst_slice"],
        "cost": costs(dict(evaluation), run.model),
        "slices": {name: {key: report["slices"][name][key] for key in (metric, "interval", "n")} for name in slices},
    }


def _pair(one: Evaluated, other: Evaluated, metric: str, slices: Sequence[str]) -> dict[str, Any]:
    names = {"first": one.name, "second": other.name}
    scores = [scores_of(run.items, run.model, metric) for run in (one, other)]
    masks = {name: _mask(one, name) for name in slices}
    return {**names, **difference(scores[0], scores[1], metric, masks), "p_holm": None}


def _holds_up(pair: Mapping[str, Any], alpha: float) -> bool:
    """By the adjusted exact test, where an item is right or wrong; else by an interval that does not hold zero."""
    if pair["p_holm"] is not None:
        return pair["p_holm"] <= alpha
    low, high = pair["interval"]
    return bool(low > 0 or high < 0)


def _mask(run: Evaluated, name: str) -> NDArray[np.bool_]:
    about = run.evaluation["slices"][name]
    return np.array([item["slices"].get(about["column"]) == about["value"] for item in run.items], dtype=bool)


def _told(model: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """What is on record of one item: its rows, or for a metric of answers the one that was generated."""
    return (model.get("generated") or {"rows": 0}) if metric in OF_ANSWERS else model


def scores_of(items: Sequence[Mapping[str, Any]], model: str, metric: str) -> Compared:
    """What a difference needs of a model: its rows, right or wrong and with their share of the item's nats.

    The nats of a single token are not on record, and no sum over items depends on them.
    """
    told = [_told(item["models"][model], metric) for item in items]
    rows_E = np.array([each["rows"] for each in told], dtype=np.int64)
    example_N = np.repeat(np.arange(len(told)), rows_E)
    if "value" in next((each for each in told if each["rows"]), {}):
        values_N = np.repeat([each.get("value", np.nan) for each in told], rows_E).astype(float)
        names = dict.fromkeys((metric, *RETRIEVAL), values_N)
        return TextScores(names, values_N, example_N, len(told))
    right_E = np.array([each.get("right", 0) for each in told], dtype=np.int64)
    nll_E = np.array([np.nan if each.get("nll") is None else each["nll"] for each in told], dtype=float)
    place_N = np.concatenate([np.arange(rows) for rows in rows_E]) if len(rows_E) else rows_E
    top1_N = np.where(place_N < np.repeat(right_E, rows_E), RIGHT, NO_ANSWER)
    nll_N = np.repeat(nll_E / np.maximum(rows_E, 1), rows_E)
    unknown_N = np.full(len(example_N), np.nan)
    label_N = np.full(len(example_N), RIGHT)
    assert RIGHT != IGNORE
    return Scores(top1_N, nll_N, label_N, example_N, unknown_N, unknown_N, unknown_N, unknown_N, len(told))
