"""Evaluated runs side by side: for a terminal, and as a page like the report of one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Printed
from rich.text import Text

from potstill.reporting.format import MISSING, difference_unit, format_difference, format_value
from potstill.reporting.markup import axis_over
from potstill.reporting.reading import is_share, metric_name, slice_labels, tick_text
from potstill.reporting.record_sections import SIZES, TIMES
from potstill.reporting.report import render
from potstill.reporting.row_plots import Mark, Row, dot_plot
from potstill.reporting.sections import Column, Section, Table, interval_text, metric_text, number, p_text
from potstill.reporting.verdict_sections import VERDICTS

MAX_PLOTTED = 40
COSTS = {**SIZES, **TIMES}
HOLDS_UP = {True: "holds up", False: "not told apart"}


def print_side_by_side(comparison: Mapping[str, Any], console: Console | None = None) -> None:
    """Runs, then pairs: made to be read at 80 columns and without colour."""
    console = console or Console()
    console.print(Text(heading(comparison), style="bold"))
    for table in (_run_table(comparison, brief=True), _pair_table(comparison)):
        printed = Printed(show_edge=False, padding=(0, 1, 0, 0), box=SIMPLE_HEAD)
        for column in table.columns:
            printed.add_column(column.name, justify="right" if column.kind == "number" else "left", overflow="fold")
        for texts in table.texts():
            printed.add_row(*map(Text, texts))
        console.print("", printed, sep="\n")


def side_by_side_page(comparison: Mapping[str, Any]) -> str:
    words = [
        "Every difference is of students on the same test items, the first minus the second.",
        "p is McNemar's exact test, with Holm's correction for as many pairs as there are. 'Not told apart' does not "
        "mean equal: more items may tell.",
        "Who chooses one of these by what stands here has chosen on the test set, and needs a fresh one for a claim.",
    ]
    sections = [
        Section("runs", "Runs", [], [_run_table(comparison), _cost_table(comparison)]),
        Section("pairs", "Differences", words, [_pair_table(comparison), *_slice_tables(comparison)]),
        *_slice_section(comparison),
    ]
    return render(
        "Runs side by side", heading(comparison), sections, made_by="potstill compare", data="comparison.json"
    )


def heading(comparison: Mapping[str, Any]) -> str:
    data, metric = comparison["data"], metric_name(comparison["metric"])
    return (
        f"{metric.capitalize()} of {len(comparison['runs'])} runs on {data['n']:,} items of the {data['split']} split"
    )


def _run_table(comparison: Mapping[str, Any], brief: bool = False) -> Table:
    metric = comparison["metric"]
    columns = {
        "run": Column("run"),
        "verdict": Column("verdict", lambda outcome: VERDICTS[outcome][1].lower()),
        "value": number(metric_name(metric), metric),
        "interval": Column("95 % interval", interval_text(metric), "number"),
        "retention": number("retention", "retention"),
        "worst_slice": Column("worst slice"),
        "seed": number("seed"),
        "bar": Column("bar"),
        "agreement": number("agreement", "agreement"),
        "ece": number("calibration error", "accuracy"),
        "place": Column("place", kind="code"),
    }
    kept = list(columns)[: 6 if brief else None]
    rows = [[run.get("name" if key == "run" else key) for key in kept] for run in comparison["runs"]]
    return Table("Runs, as they were given", [columns[key] for key in kept], rows)


def _cost_table(comparison: Mapping[str, Any]) -> Table:
    runs = comparison["runs"]
    rows = [[label, *(format_value(key, run["cost"].get(key)) for run in runs)] for key, label in COSTS.items()]
    return Table("Cost", [Column("cost"), *(number(run["name"]) for run in runs)], rows)


def _pair_table(comparison: Mapping[str, Any]) -> Table:
    rows = [
        [
            f"{pair['first']} - {pair['second']}",
            pair["value"],
            pair["interval"],
            pair["p_holm"],
            pair["n"],
            pair["holds_up"],
        ]
        for pair in comparison["pairs"]
    ]
    columns = [Column("difference"), *_difference_columns(comparison["metric"]), number("n")]
    return Table("Differences, paired by item", [*columns, Column("outcome", lambda holds: HOLDS_UP[holds])], rows)


def _difference_columns(metric: str) -> list[Column]:
    signed = partial(format_difference, metric)
    name = f"{metric_name(metric)}{difference_unit(metric).replace(' ', ', ', 1)}"
    interval = Column(
        "95 % interval", lambda pair: MISSING if None in pair else " to ".join(map(signed, pair)), "number"
    )
    return [Column(name, signed, "number"), interval, Column("p, Holm", p_text, "number")]


def _slice_tables(comparison: Mapping[str, Any]) -> list[Table]:
    columns = [Column("slice"), *_difference_columns(comparison["metric"]), number("n")]
    tables = []
    for pair in comparison["pairs"]:
        found = sorted(pair["slices"].items(), key=lambda item: (item[1]["value"] is None, item[1]["value"]))
        rows = [[name, each["value"], each["interval"], each["p_holm"], each["n"]] for name, each in found]
        if rows:
            tables.append(Table(f"{pair['first']} - {pair['second']} by slice", columns, rows, is_folded=True))
    return tables


def _slice_section(comparison: Mapping[str, Any]) -> list[Section]:
    runs, metric = comparison["runs"], comparison["metric"]
    first = runs[0]["slices"]
    sign = 1 if comparison["higher_is_better"] else -1
    names = sorted(first, key=lambda name: sign * (first[name][metric] or 0.0))
    if not names:
        return []
    marks = {
        name: [
            Mark(lane, run["slices"][name][metric], *run["slices"][name]["interval"]) for lane, run in enumerate(runs)
        ]
        for name in names[:MAX_PLOTTED]
    }
    values = [
        each for row in marks.values() for mark in row for each in (mark.value, mark.low, mark.high) if each is not None
    ]
    axis = axis_over(values, tick_text(metric), bounds=(0.0, 1.0) if is_share(metric) else None)
    labels, write = slice_labels(names), metric_text(metric)
    rows = [
        Row(labels[name], write(first[name][metric]), row, f"n {first[name]['n']:,}") for name, row in marks.items()
    ]
    series = [run["name"] for run in runs]
    plot = dot_plot(rows, axis, f"{metric_name(metric)} of {', '.join(series)} on {len(rows)} slices", series)
    columns = [Column("slice"), *(number(name, metric) for name in series)]
    table = Table(
        "Slices", columns, [[name, *(run["slices"][name][metric] for run in runs)] for name in names], is_folded=True
    )
    words = [f"With 95 % intervals, the worst of {runs[0]['name']} first; the numbers on the right are its own."]
    return [Section("slices", "Slices", words, [table], [plot])]
