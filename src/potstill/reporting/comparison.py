"""`comparison.json` on the terminal: the ranking, what holds up, what is not ranked and why."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from potstill.reporting.format import MISSING, difference_unit, format_difference, format_value
from potstill.sweeps.seeds import HOLDS_UP

MAX_ROWS, MAX_SLICES, MAX_VALUE_LETTERS, MAX_REASON_LETTERS = 20, 5, 20, 140


@dataclass(frozen=True)
class Column:
    """priority: those of the largest number are the first to go where the terminal is narrow."""

    name: str
    cells: list[str]
    priority: int = 0
    is_text: bool = False

    @property
    def width(self) -> int:
        return max(map(len, (self.name, *self.cells))) + 2  # of padding and of the line between two columns


def print_comparison(comparison: dict[str, Any], console: Console | None = None) -> None:
    """Print what `potstill.sweeps.comparison.compare` returned. Made to be read at 80 columns and without colour."""
    console = console or Console()
    console.print(Text(title(comparison), style="bold"))
    for note in comparison["notes"]:
        console.print(Text(note))
    if comparison["groups"]:
        columns = _columns(comparison, comparison["groups"][:MAX_ROWS])
        kept = _fitting(columns, console.width)
        console.print("", _leaderboard(kept), sep="\n")
        console.print(Text(_left_out(comparison, [column.name for column in columns if column not in kept])))
    for line in summary(comparison):
        console.print(Text(line))
    tables = {"Worst slice of the best runs, on test data": _worst_slices, "Not ranked": _not_ranked}
    for heading, make in tables.items():
        if (table := make(comparison)).row_count:
            console.print("", Text(heading, style="bold"), table, sep="\n")


def title(comparison: dict[str, Any]) -> str:
    groups, num_runs = comparison["groups"], len(comparison["runs"])
    num_ranked = sum(len(group["runs"]) for group in groups)
    direction = "higher" if comparison["higher_is_better"] else "lower"
    return f"{comparison['metric']}, {direction} is better: {num_ranked} of {num_runs} runs ranked"


def summary(comparison: dict[str, Any]) -> list[str]:
    """Sentences that go with the ranking."""
    tested = [lead["verdict"] for lead in _leads(comparison) if lead["p_value"] is not None]
    num_held = sum(verdict == HOLDS_UP for verdict in tested)
    test = "p < 0.05, t test paired by seed, Holm's correction"
    lines = [f"Leads of the best that hold up: {num_held} of {len(tested)} ({test})."] * bool(tested)
    cost, costs = comparison["cost"], costs_of(comparison)
    if cost and len(costs) == 1:
        lines.append(f"All have the same {cost}: {metric_text(cost, costs.pop())}.")
    elif costs:
        lines.append(f"*: no other run is better for the same or a lower {cost}.")
    importance = comparison["importance"]
    if isinstance(importance, dict):
        shares = ", ".join(f"{short_name(comparison, key)} {share:.2f}" for key, share in importance.items())
        importance = f"Importance, share of the spread of {comparison['metric']} (fANOVA): {shares}"
    return [*lines, importance]


def metric_text(metric: str, value: float | None) -> str:
    """A value with the unit that its metric's name stands for."""
    name = metric.rpartition("/")[2]
    if name == "seconds" and value is not None:
        return f"{value:.1f} s"
    return format_value(name, round(value) if name == "parameters" and value is not None else value)


def mean_text(metric: str, group: dict[str, Any]) -> str:
    """`66.2 +- 0.4 %`; without a deviation below two seeds."""
    number, _, unit = metric_text(metric, group["mean"]).partition(" ")
    if group["deviation"] is not None:
        number += f" +- {metric_text(metric, group['deviation']).partition(' ')[0]}"
    return f"{number} {unit}".rstrip()


def lead_text(metric: str, lead: dict[str, Any] | None) -> str:
    """`+2.4 [-1.0, +5.8]`, shares in points."""
    if lead is None:
        return ""
    name = metric.rpartition("/")[2]
    value, low, high = (format_difference(name, lead[key]) for key in ("value", "low", "high"))
    return value if MISSING in (low, high) else f"{value} [{low}, {high}]"


def lead_heading(metric: str) -> str:
    return f"best leads by{difference_unit(metric.rpartition('/')[2])}"


def value_text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    return f"{value:g}" if isinstance(value, float) else str(value)


def short_name(comparison: dict[str, Any], key: str) -> str:
    return comparison["keys"].get(key, key)


def costs_of(comparison: dict[str, Any]) -> set[float]:
    """The costs there are, of groups."""
    found = (group["means"].get(comparison["cost"]) for group in comparison["groups"])
    return {cost for cost in found if cost is not None}


def _leads(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    return [group["best_leads_by"] for group in comparison["groups"] if group["best_leads_by"]]


def _fitting(columns: list[Column], width: int) -> list[Column]:
    """The columns that a terminal of `width` has room for, in their order."""
    kept: list[Column] = []
    for column in sorted(columns, key=lambda column: column.priority):
        if column.priority == 0 or sum(each.width for each in (*kept, column)) <= width:
            kept.append(column)
    return [column for column in columns if column in kept]


def _leaderboard(columns: list[Column]) -> Table:
    table = _table()
    for column in columns:
        table.add_column(Text(column.name), justify="left" if column.is_text else "right", no_wrap=True)
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, row))
    return table


def _left_out(comparison: dict[str, Any], names: list[str]) -> str:
    num_rows = len(comparison["groups"]) - MAX_ROWS
    rest = [f"{num_rows} more rows"] if num_rows > 0 else []
    rest += [f"columns {', '.join(names)}"] if names else []
    return f"In comparison.json as well: {'; '.join(rest)}\n" if rest else ""


def _columns(comparison: dict[str, Any], groups: list[dict[str, Any]]) -> list[Column]:
    metric, cost = comparison["metric"], comparison["cost"]
    columns = [Column("#", [str(group["place"]) for group in groups])]
    columns.append(Column("run", [_runs(group) for group in groups], is_text=True))
    for number, (key, short) in enumerate(comparison["keys"].items(), 1):
        columns.append(Column(short, [_cut(value_text(group["values"][key])) for group in groups], number))
    columns.append(Column(metric, [mean_text(metric, group) for group in groups]))
    if any(group["num_seeds"] > 1 for group in comparison["groups"]):
        columns.append(Column("n", [str(group["num_seeds"]) for group in groups]))
        if len(groups) > 1:
            leads = [group["best_leads_by"] for group in groups]
            columns.append(Column(lead_heading(metric), [lead_text(metric, lead) for lead in leads], len(columns)))
            verdicts = [_short(lead["verdict"]) if lead else "" for lead in leads]
            columns.append(Column("over seeds", verdicts, is_text=True))
    if len(costs_of(comparison)) > 1:
        marks = ["*" if group["is_on_front"] else " " for group in groups]
        texts = [metric_text(cost, group["means"].get(cost)) for group in groups]
        cells = [f"{text} {mark}" for text, mark in zip(texts, marks, strict=True)]
        columns.append(Column(cost, cells, len(columns)))
    return columns


def _short(verdict: str) -> str:
    """Without the number of seeds, which has a column of its own."""
    return verdict.partition(" at ")[0].partition(":")[0]


def _runs(group: dict[str, Any]) -> str:
    """The runs of a group, or the first and how many more."""
    together = ",".join(group["runs"])
    return together if len(together) <= MAX_VALUE_LETTERS // 2 else f"{group['runs'][0]} +{len(group['runs']) - 1}"


def _worst_slices(comparison: dict[str, Any]) -> Table:
    """Of the runs that were evaluated, in the order of the ranking."""
    ranking = [name for group in comparison["groups"] for name in group["runs"]]
    runs = [run for run in comparison["runs"] if run["worst_slice"] and run["name"] in ranking]
    table = _table()
    for name in ("run", "slice", "value", "n"):
        justify = "left" if name in ("run", "slice") else "right"
        table.add_column(name, justify=justify, overflow="fold")
    for run in sorted(runs, key=lambda run: ranking.index(run["name"]))[:MAX_SLICES]:
        worst = run["worst_slice"]
        value = format_value(worst["metric"], worst["value"])
        table.add_row(*map(Text, (run["name"], worst["slice"], value, format_value("n", worst["n"]))))
    return table


def _not_ranked(comparison: dict[str, Any]) -> Table:
    table = _table()
    for name in ("run", "status", "own overrides", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name == "status")
    for row in comparison["not_ranked"]:
        reason = textwrap.shorten(row["reason"] or "", MAX_REASON_LETTERS, placeholder=" ...")
        cells = (row["run"], row["status"], " ".join(row["overrides"]), reason)
        table.add_row(*map(Text, cells))
    return table


def _cut(text: str) -> str:
    """Long texts by their end, which tells paths apart."""
    return text if len(text) <= MAX_VALUE_LETTERS else f"...{text[3 - MAX_VALUE_LETTERS :]}"


def _table() -> Table:
    return Table(show_edge=False, padding=(0, 1, 0, 0), caption_justify="left", box=SIMPLE_HEAD)
