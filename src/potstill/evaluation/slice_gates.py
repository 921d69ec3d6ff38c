"""Gates over slices: all have to be good, so that all have to pass, and one that fails is enough."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from potstill.evaluation.bar import BarConfig
from potstill.evaluation.statistics import Interval, holm, p_worse_than
from potstill.evaluation.verdict import FAIL, ORDER, PASS, UNKNOWN


def slice_gates(report: dict[str, Any], bar: BarConfig) -> Iterator[dict[str, Any]]:
    metric, sign = report["metric"], 1 if report["higher_is_better"] else -1
    if bar.slice_margin is not None:
        pair = report["differences"].get("student-teacher")
        found = {name: _turned(node, sign) for name, node in pair["slices"].items()} if pair else {}
        measure = f"advantage of the student over its teacher in {metric}, by slice"
        yield over_slices("slices", measure, found, -bar.slice_margin, report, bar)
    if bar.slice_quality is not None and "student" in report["models"]:
        groups = report["models"]["student"]["slices"]
        found = {
            name: _turned({"value": each[metric], "interval": each["interval"], "n": each["num_items"]}, sign)
            for name, each in groups.items()
        }
        measure = f"{metric} of the student, by slice" if sign > 0 else f"negative {metric} of the student, by slice"
        yield over_slices("worst_slice", measure, found, sign * bar.slice_quality, report, bar)
    if bar.found_slices is not None:
        yield _found(report["found_slices"], bar.found_slices)


def over_slices(
    name: str, measure: str, found: dict[str, Interval], threshold: float, report: dict[str, Any], bar: BarConfig
) -> dict[str, Any]:
    """Passes where every slice does: then none needs adjusting. Fails where Holm's adjusted p-value of one says that it
    is worse than the threshold: of many slices, one would by chance. A slice that is too small does neither.
    """
    small = {slice for slice, each in report["slices"].items() if each["is_too_small"]}
    p_values = {slice: p_worse_than(each, threshold) for slice, each in found.items() if slice not in small}
    tested = [slice for slice, p_value in p_values.items() if not math.isnan(p_value)]
    adjusted = dict(zip(tested, holm([p_values[slice] for slice in tested]), strict=True))
    details = [
        {
            "slice": slice,
            "value": each.value,
            "interval": [each.low, each.high],
            "n": each.n,
            "p_value": p_values.get(slice),
            "p_holm": adjusted.get(slice),
            "outcome": _outcome(each, threshold, adjusted.get(slice), bar.alpha),
        }
        for slice, each in found.items()
    ]
    details.sort(key=lambda each: (ORDER.index(each["outcome"]), _last_if_nan(each["value"]), each["slice"]))
    return _gate(name, measure, threshold, "at_least", details, small & found.keys())


def _outcome(found: Interval, threshold: float, p_adjusted: float | None, alpha: float) -> str:
    if p_adjusted is None:
        return UNKNOWN
    if p_adjusted <= alpha and found.value < threshold:
        return FAIL
    return PASS if found.low >= threshold else UNKNOWN


def _gate(
    name: str, measure: str, threshold: float, side: str, details: list[dict[str, Any]], small: set[str]
) -> dict[str, Any]:
    first = details[0] if details else None
    return {
        "name": name,
        "outcome": first["outcome"] if first else UNKNOWN,
        "measure": measure,
        "value": first["value"] if first else math.nan,
        "threshold": threshold,
        "side": side,
        "interval": first["interval"] if first else [math.nan, math.nan],
        "n": first["n"] if first else 0,
        "slice": first["slice"] if first else None,
        "says": _says(measure, threshold, side, details, small),
        "details": details,
    }


def _says(measure: str, threshold: float, side: str, details: list[dict[str, Any]], small: set[str]) -> str:
    asked = f"{side.replace('_', ' ')} {threshold:.4g} is asked for"
    if not details:
        return f"{measure}: there is no slice to look at; {asked}"
    named = ", ".join(
        f"{each['slice']} {each['value']:.4g} (n = {each['n']})"
        for each in details
        if each["outcome"] == details[0]["outcome"]
    )
    counted = {kind: sum(each["outcome"] == kind for each in details) for kind in ORDER}
    told = {
        FAIL: f"{counted[FAIL]} of {len(details)} slices fail: {named}",
        UNKNOWN: f"{counted[UNKNOWN]} of {len(details)} slices are open: {named}",
        PASS: f"all {len(details)} slices pass",
    }[details[0]["outcome"]]
    too_small = f"; too small to say: {', '.join(sorted(small))}" if small else ""
    return f"{measure}: {told}; {asked}{too_small}"


def _found(block: dict[str, Any] | None, threshold: float) -> dict[str, Any]:
    """Slices that were searched for on one half and measured on the other."""
    measure = "error rate on slices that were searched for"
    if block is None:
        made = _gate("found_slices", measure, threshold, "at_most", [], set())
        return {**made, "says": "nobody searched for slices on which the student fails"}
    details = [
        {
            "slice": each["name"],
            "value": each["error_rate"],
            "interval": each["interval"],
            "n": each["n"],
            "p_value": each["p_value"],
            "p_holm": each["p_holm"],
            "outcome": _beyond(each["interval"], threshold),
        }
        for each in block["slices"]
    ]
    details.sort(key=lambda each: (ORDER.index(each["outcome"]), -each["value"], each["slice"]))
    made = _gate("found_slices", measure, threshold, "at_most", details, set())
    if not details:  # searched, and nothing stood out
        rate = block["error_rate"]
        number = {"value": rate, "interval": [rate, rate], "n": block["n_tested_on"], "outcome": PASS}
        return {**made, **number, "says": "no slice was found on which the student fails more than elsewhere"}
    return made


def _beyond(interval: list[float], threshold: float) -> str:
    low, high = interval
    return FAIL if low > threshold else PASS if high <= threshold else UNKNOWN


def _turned(node: dict[str, Any], sign: int) -> Interval:
    """More is better."""
    value, low, high = (math.nan if each is None else sign * each for each in (node["value"], *node["interval"]))
    return Interval(value, *((low, high) if sign > 0 else (high, low)), node["n"])


def _last_if_nan(value: float) -> float:
    return math.inf if math.isnan(value) else value
