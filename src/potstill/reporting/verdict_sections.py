"""The verdict and its gates: what a release board reads first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from potstill.reporting.format import MISSING, difference_unit, format_difference, format_value
from potstill.reporting.reading import (
    Evaluation,
    bounds,
    count,
    metric_name,
    models_in_order,
    shown,
    value_text,
)
from potstill.reporting.sections import Column, Section, Table, between, interval_text, metric_text, number, p_text

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
DECISIVE = {"DO_NOT_SHIP": "fail", "NOT_ENOUGH_EVIDENCE": "not_enough_evidence"}
SIDES = {"at_least": "at least", "at_most": "at most", "above": "above"}
MAX_DETAILS, MAX_NAMED = 30, 5  # slices of a gate: in its table, and in its sentence
COUNTS = frozenset({"test_items", "finite", "size"})  # gates on a number of things; that of seeds is another
METRICS = frozenset({"quality", "worst_slice", "clean"})  # gates on the task's metric; the others' values are shares
ADVANTAGE = "advantage"  # how the measure of a difference begins


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
    outcome = evaluation["verdict"]["outcome"]
    deciding = [gate for gate in evaluation["gates"] if gate["outcome"] == DECISIVE.get(outcome)]
    return Headline(*VERDICTS[outcome], reasons=[sentence(gate, evaluation["metric"]) for gate in deciding])


def sentence(gate: dict[str, Any], metric: str) -> str:
    """`quality: accuracy of the student is 19.9 % (16.0 to 24.6 %), at least 90.0 % is asked for`."""
    name = gate["name"].replace("_", " ")
    if gate["value"] is None:
        return f"{name}: {gate['says']}"
    write = _writer(gate, metric)
    interval = _interval(gate, metric)
    value = write(gate["value"]) + (f" ({interval})" if interval != MISSING else "")
    where = f" on {gate['slice']}" if gate["slice"] else ""
    alike = [each["slice"] for each in gate["details"] if each["outcome"] == gate["outcome"]]
    others = f"; as much is true of {', '.join(alike[1:MAX_NAMED])}" if len(alike) > 1 else ""
    others += f" and {len(alike) - MAX_NAMED} more" if len(alike) > MAX_NAMED else ""
    asked = f"{SIDES[gate['side']]} {write(gate['threshold'])} is asked for"
    return f"{name}: {gate['measure'].removesuffix(', by slice')} is {value}{where}, {asked}{others}"


def figures(evaluation: Evaluation) -> list[Figure]:
    """Quality, retention, worst slice, lead over the baseline, size: those of them that there are."""
    return list(_figures(evaluation))


def gate_section(evaluation: Evaluation) -> Section:
    name = (evaluation.get("bar") or {}).get("name")
    if not evaluation["gates"]:
        return Section("gates", "Gates", ["No gate was asked for."])
    words = [
        f"{f'The bar is {name}. ' if name else ''}A gate passes where its whole 95 % interval is on the right side of "
        "what is asked for, and fails where the whole interval is on the wrong side."
    ]
    columns = [Column("gate"), Column("outcome", kind="status"), Column("what is measured")]
    columns += [number(each) for each in ("value", "asked for", "95 % interval", "n")]
    rows = [_gate_row(gate, evaluation["metric"]) for gate in evaluation["gates"]]
    caption = "Gates: failed ones first, then those without evidence"
    table = Table(caption, columns, rows, is_stacked=True)
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
        yield Figure("worst slice", value_text(evaluation, group), f"{worst}, n {count(evaluation, group):,}")
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


def _gate_row(gate: dict[str, Any], metric: str) -> list[Any]:
    write = _writer(gate, metric)
    limit = MISSING if gate["threshold"] is None else f"{SIDES[gate['side']]} {write(gate['threshold'])}"
    name = gate["name"].replace("_", " ") + (f": {gate['slice']}" if gate["slice"] else "")
    measure = gate["says"] if gate["value"] is None else gate["measure"]
    return [name, gate["outcome"], measure, write(gate["value"]), limit, _interval(gate, metric), gate["n"]]


def _interval(node: dict[str, Any], metric: str) -> str:
    """Nothing of what was counted and not sampled."""
    low, high = bounds(node)
    if low is None or high is None or low == high:
        return MISSING
    write = _writer(node, metric)
    return between(write(low), write(high)).removesuffix(" points")


def _writer(gate: dict[str, Any], metric: str) -> Callable[[Any], str]:
    """Writes the gate's numbers: differences of shares in signed points, shares in percent, counts as they are."""
    measure = gate["measure"]
    if measure.startswith(ADVANTAGE):
        return lambda value: (
            MISSING if value is None else f"{format_difference(metric, value)}{difference_unit(metric)}"
        )
    if gate["name"] in COUNTS or measure.startswith("number"):
        return metric_text(measure.split()[0] if gate["name"] == "size" else "n")
    return metric_text(metric if gate["name"] in METRICS else "retention")


def _details(evaluation: Evaluation) -> Iterator[Table]:
    for gate in evaluation["gates"]:
        if gate["details"]:
            write = _writer(gate, evaluation["metric"])
            columns = [Column("slice"), Column("outcome", kind="status"), Column("value", write, "number")]
            columns += [number("95 % interval"), number("n"), Column("p, Holm", p_text, "number")]
            rows = [
                [
                    *(row[key] for key in ("slice", "outcome", "value")),
                    _interval({**gate, **row}, evaluation["metric"]),
                    row["n"],
                    row.get("p_holm"),
                ]
                for row in gate["details"][:MAX_DETAILS]
            ]
            yield Table(f"Gate '{gate['name'].replace('_', ' ')}' by slice, worst first", columns, rows, is_folded=True)
