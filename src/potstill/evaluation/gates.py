"""The gates between a student and its release: each a limit of the bar, held against a measured interval.

A gate passes where the whole interval lies on the right side of the limit, fails where the whole interval lies on the
wrong side, and has not enough evidence otherwise: what was not measured never passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from potstill.evaluation.bar import BarConfig
from potstill.evaluation.slice_gates import slice_gates
from potstill.evaluation.verdict import FAIL, ORDER, PASS, UNKNOWN

NO_TEACHER = "no teacher was evaluated to compare with"
NO_BASELINE = "no baseline was evaluated: give baseline=PATH, a run of the same student without the teacher"


@dataclass(frozen=True)
class Found:
    """A number with its interval; `nan` where it could not be measured."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0

    @staticmethod
    def of(node: dict[str, Any] | None, value: str = "value", n: str = "n") -> Found:
        """What a block of the report says under these names."""
        if not node:
            return Found()
        low, high = node["interval"]
        numbers = [math.nan if each is None else float(each) for each in (node[value], low, high)]
        return Found(numbers[0], numbers[1], numbers[2], int(node[n]))

    @staticmethod
    def exactly(value: float, n: int = 0) -> Found:
        """Counted, not sampled."""
        return Found(value, value, value, n)


def gates(report: dict[str, Any], bar: BarConfig) -> list[dict[str, Any]]:
    """Every gate that the bar asks for: those that failed first, then those without evidence."""
    if not bar.asks:
        return []
    found = [
        *_of_the_test(report, bar),
        *_of_the_student(report, bar),
        *_of_pairs(report, bar),
        *slice_gates(report, bar),
        *_of_the_data(report, bar),
        *_of_seeds(report, bar),
    ]
    return sorted(found, key=lambda gate: ORDER.index(gate["outcome"]))


def outcome_of(found: Found, threshold: float, side: str) -> str:
    """side: where the interval has to lie: `at_least`, `at_most` or `above` the threshold."""
    if any(math.isnan(number) for number in (found.value, found.low, found.high)):
        return UNKNOWN
    if side == "at_most":
        return PASS if found.high <= threshold else FAIL if found.low > threshold else UNKNOWN
    if side == "above":
        return PASS if found.low > threshold else FAIL if found.high <= threshold else UNKNOWN
    return PASS if found.low >= threshold else FAIL if found.high < threshold else UNKNOWN


def gate(name: str, measure: str, found: Found, threshold: float, side: str, *, missing: str = "") -> dict[str, Any]:
    """missing: why there is nothing to judge, where there is nothing."""
    outcome = outcome_of(found, threshold, side)
    return {
        "name": name,
        "outcome": outcome,
        "measure": measure,
        "value": found.value,
        "threshold": threshold,
        "side": side,
        "interval": [found.low, found.high],
        "n": found.n,
        "slice": None,
        "says": says(measure, found, threshold, side, outcome) if found.n or not missing else missing,
        "details": [],
    }


def says(measure: str, found: Found, threshold: float, side: str, outcome: str) -> str:
    """The gate in one sentence."""
    asked = f"{side.replace('_', ' ')} {threshold:.4g}"
    if math.isnan(found.value):
        return f"{measure} cannot be measured; {asked} is asked for"
    interval = "" if found.low == found.high else f" [{found.low:.4g}, {found.high:.4g}]"
    doubt = "; the interval holds the limit" if outcome == UNKNOWN and found.low == found.low else ""
    return f"{measure} is {found.value:.4g}{interval}, {asked} is asked for{doubt}"


def _of_the_test(report: dict[str, Any], bar: BarConfig) -> Iterator[dict[str, Any]]:
    count = report["data"]["num_labelled"]
    enough = gate("test_items", "number of labelled test items", Found.exactly(count, count), bar.min_items, "at_least")
    if enough["outcome"] == FAIL:  # few items are no fault of the student's
        enough["outcome"] = UNKNOWN
    yield enough
    student = report["models"].get("student")
    if student:
        broken = student["overall"]["num_nonfinite"]
        yield gate(
            "finite", "rows whose logits hold a nan", Found.exactly(broken, student["overall"]["n"]), 0, "at_most"
        )


def _of_the_student(report: dict[str, Any], bar: BarConfig) -> Iterator[dict[str, Any]]:
    metric, student = report["metric"], report["models"].get("student")
    overall = student["overall"] if student else None
    side = "at_least" if report["higher_is_better"] else "at_most"
    if bar.quality is not None:
        yield gate("quality", f"{metric} of the student", Found.of(overall, metric, "num_items"), bar.quality, side)
    against = overall and overall["against_teacher"]
    if bar.retention is not None:
        kept = None
        if overall and against:
            kept = {"value": against["retention"], "interval": against["retention_interval"], "n": overall["num_items"]}
        found = Found.of(kept)
        yield gate("retention", f"retention of {metric}", found, bar.retention, "at_least", missing=NO_TEACHER)
    if bar.copied_errors is not None:
        found = Found.of(against and against.get("copied_errors"))
        measure = "share of the teacher's errors that the student repeats"
        missing = "the teacher makes no error here" if against else NO_TEACHER
        yield gate("copied_errors", measure, found, bar.copied_errors, "at_most", missing=missing)
    if bar.ece is not None:
        node, error = None, overall and overall["calibration"]
        if overall and error:
            node = {"value": error["ece"], "interval": error["ece_interval"], "n": overall["num_items"]}
        yield gate("calibration", "expected calibration error of the student", Found.of(node), bar.ece, "at_most")
    for name in ("parameters", "model_bytes"):
        limit = getattr(bar, name)
        if limit is not None and student:
            yield gate("size", f"{name} of the student", Found.exactly(student["size"][name], 1), limit, "at_most")


def advantage(node: dict[str, Any] | None, higher_is_better: bool) -> Found:
    """A difference turned so that more is better."""
    found = Found.of(node)
    return found if higher_is_better else Found(-found.value, -found.high, -found.low, found.n)


def _of_pairs(report: dict[str, Any], bar: BarConfig) -> Iterator[dict[str, Any]]:
    metric, higher, pairs = report["metric"], report["higher_is_better"], report["differences"]
    if bar.margin is not None:
        found = advantage(pairs.get("student-teacher"), higher)
        measure = f"advantage of the student over its teacher in {metric}"
        yield gate("teacher", measure, found, -bar.margin, "at_least", missing=NO_TEACHER)
    if bar.baseline:
        yield ahead(report, "baseline", "baseline", NO_BASELINE)
    if bar.majority and report["task"] in ("text_classification", "image_classification"):
        missing = "the training data has no label that could be given to everything"
        yield ahead(report, "majority", "most frequent label", missing)


def ahead(report: dict[str, Any], name: str, called: str, missing: str) -> dict[str, Any]:
    """The student is better than the model `name`: by its interval and, where there is one, by the exact test too."""
    node, alpha = report["differences"].get(f"student-{name}"), report["bar"]["alpha"]
    found = advantage(node, report["higher_is_better"])
    made = gate(name, f"advantage of the student over the {called} in {report['metric']}", found, 0.0, "above")
    if node is None:
        made["says"] = missing
    elif made["outcome"] == PASS and node["p_value"] is not None and node["p_value"] > alpha:
        made["outcome"] = UNKNOWN
        made["says"] += f"; McNemar's exact test leaves chance open (p = {node['p_value']:.3g})"
    return made


def against_baseline(report: dict[str, Any]) -> str | None:
    """Outcome of the gate `baseline`, whether or not the bar asks for it; None without one."""
    pair = report["differences"].get("student-baseline")
    return ahead(report, "baseline", "baseline", NO_BASELINE)["outcome"] if pair else None


def _of_the_data(report: dict[str, Any], bar: BarConfig) -> Iterator[dict[str, Any]]:
    block = report["contamination"]
    missing = "nobody looked whether test items are in the training data"
    if bar.contamination is not None:
        found = Found.exactly(block["num_dirty"] / block["n"], block["n"]) if block and block["n"] else Found()
        measure = "share of test items that are in the training data"
        yield gate("contamination", measure, found, bar.contamination, "at_most", missing=missing)
    if bar.clean and bar.quality is not None:
        side = "at_least" if report["higher_is_better"] else "at_most"
        found = Found.of(block["models"]["student"]["clean"]) if block and "student" in block["models"] else Found()
        measure = f"{report['metric']} of the student on items that are not in the training data"
        yield gate("clean", measure, found, bar.quality, side, missing=missing)


def _of_seeds(report: dict[str, Any], bar: BarConfig) -> Iterator[dict[str, Any]]:
    if bar.min_seeds is None:
        return
    block = report["seeds"]
    count = len({run["seed"] for run in block["runs"]}) if block else 1
    enough = gate("seeds", "number of seeds", Found.exactly(count, count), bar.min_seeds, "at_least")
    if enough["outcome"] == FAIL:
        enough["outcome"] = UNKNOWN
        enough["says"] += "; give seeds=[PATH, ...], runs that were evaluated before"
    yield enough
    if block and block["difference"] and bar.baseline:
        found = advantage(block["difference"], report["higher_is_better"])
        yield gate("seeds", f"advantage over the baseline in {report['metric']}, over seeds", found, 0.0, "above")
