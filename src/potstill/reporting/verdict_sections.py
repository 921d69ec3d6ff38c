"""The verdict and its gates: what a release board reads first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from potstill.reporting.format import MISSING, difference_unit, format_difference, format_value
from potstill.reporting.reading import (
    Evaluation,
    bounds,
    is_share,
    metric_name,
    models_in_order,
    shown,
    value_text,
)
from potstill.reporting.sections import Column, Section, Table, interval_text, metric_text, number

VERDICTS = {
    "SHIP": ("good", "Ship", "Every gate of the bar passes."),
    "DO_NOT_SHIP": ("bad", "Do not ship", "At least one gate of the bar fails."),
    "NOT_ENOUGH_EVIDENCE": (
        "unsure",
        "Not enough evidence",
        "No gate fails, but the test data cannot settle them all.",
    ),
    None: ("none", "No verdict", "No bar was given, so there is nothing to pass or fail."),
}
SIDES = {"at_least": "at least", "at_most": "at most", "above": "above"}
MAX_DETAILS = 30
COUNTED = frozenset({"size", "test_items"})  # gates whose value is a number of things, not a share
SIGNED = "student - "  # how the measure of a difference begins


@dataclass(frozen=True)
class Headline:
    """tone: `good`, `bad`, `unsure` or `none`. reasons: the gates that decided."""

    tone: str
    title: str
    explanation: str
    reasons: list[str]


@dataclass(frozen=True)
class Figure:
    """One large number, with what stands below it."""

    label: str
    value: str
    note: str


def headline(evaluation: Evaluation) -> Headline:
    verdict = evaluation["verdict"]
    return Headline(*VERDICTS[verdict["outcome"]], reasons=list(verdict["because"]))


def figures(evaluation: Evaluation) -> list[Figure]:
    """Quality, retention, worst slice, lead over the baseline, size: those of them that there are."""
    return list(_figures(evaluation))


def gate_section(evaluation: Evaluation) -> Section:
    bar = evaluation.get("bar") or {}
    words = [f"The bar is '{bar['name']}'. A gate passes only where its whole 95 % interval is on the right side."]
    columns = [
        Column("gate"),
        Column("outcome", kind="status"),
        number("value"),
        number("asked for"),
        number("95 % interval"),
        number("n"),
        Column("in words"),
    ]
    rows = [_gate_row(gate) for gate in evaluation["gates"]]
    table = Table("Gates: failed ones first, then those without evidence", columns, rows, is_stacked=True)
    return Section("gates", "Gates", words, [table, *_details(evaluation)])


def _figures(evaluation: Evaluation) -> Iterator[Figure]:
    model, metric = shown(evaluation), evaluation["metric"]
    report = evaluation["models"][model]
    overall = report["overall"]
    interval = interval_text(metric)
    note = f"95 % interval {interval(overall['interval'])}"
    yield Figure(f"{metric_name(metric)} of the {model}", value_text(evaluation, overall), note)
    against = overall.get("against_teacher")
    if against and against["retention"] is not None:
        text = format_value("retention", against["retention"])
        yield Figure("retention", text, f"of the teacher's {value_text(evaluation, _overall(evaluation, 'teacher'))}")
    if worst := report.get("worst_slice"):
        group = report["slices"][worst]
        yield Figure("worst slice", value_text(evaluation, group), f"{worst}, {group['n']:,} rows")
    if difference := evaluation["differences"].get("student-baseline"):
        value = f"{format_difference(metric, difference['value'])}{difference_unit(metric)}"
        low, high = (format_difference(metric, bound) for bound in difference["interval"])
        yield Figure("ahead of the baseline", value, f"95 % interval {low} to {high}")
    if "teacher" in models_in_order(evaluation) and model != "teacher":
        sizes = [evaluation["models"][name]["size"]["parameters"] for name in ("teacher", model)]
        if all(sizes):
            text = f"{sizes[0] / sizes[1]:.3g} x"
            yield Figure("smaller than the teacher", text, f"{sizes[1]:,} of {sizes[0]:,} parameters")


def _overall(evaluation: Evaluation, model: str) -> dict[str, Any]:
    return evaluation["models"][model]["overall"]


def _gate_row(gate: dict[str, Any]) -> list[Any]:
    write = _writer(gate)
    low, high = bounds(gate)
    interval = (
        _between(write(low), write(high)).removesuffix(" points")
        if None not in (low, high) and low != high
        else MISSING
    )
    limit = MISSING if gate["threshold"] is None else f"{SIDES[gate['side']]} {write(gate['threshold'])}"
    name = gate["name"].replace("_", " ") + (f": {gate['slice']}" if gate.get("slice") else "")
    return [name, gate["outcome"], write(gate["value"]), limit, interval, gate["n"], gate["says"]]


def _between(low: str, high: str) -> str:
    """`83.0 to 85.0 %`: the unit once."""
    number, _, unit = low.partition(" ")
    return f"{number if high.endswith(unit) else low} to {high}"


def _writer(gate: dict[str, Any]) -> Any:
    """Writes the gate's numbers: shares in percent, differences of shares in signed points, counts as they are."""
    metric = next((name for name in gate["measure"].replace("@", "_at_").split() if is_share(name)), "")
    if gate["name"] in COUNTED:
        return lambda value: MISSING if value is None else f"{value:,.0f}"
    if gate["measure"].startswith(SIGNED):
        return lambda value: f"{format_difference(metric, value)}{difference_unit(metric)}"
    return metric_text(metric or ("accuracy" if gate["name"] in SHARE_GATES else gate["name"]))


SHARE_GATES = frozenset(
    {"retention", "copied_errors", "calibration", "contamination", "worst_slice", "quality", "slices"}
)


def _details(evaluation: Evaluation) -> Iterator[Table]:
    for gate in evaluation["gates"]:
        if gate["details"]:
            write = _writer(gate)
            columns = [
                Column("slice"),
                Column("outcome", kind="status"),
                Column("value", write, "number"),
                Column("95 % interval", lambda pair, write=write: _between(*map(write, pair)), "number"),
                number("n"),
                number("p"),
            ]
            keys = ("slice", "outcome", "value", "interval", "n", "p_value")
            rows = [[row.get(key) for key in keys] for row in gate["details"][:MAX_DETAILS]]
            yield Table(f"Gate '{gate['name'].replace('_', ' ')}' by slice, worst first", columns, rows, is_folded=True)
