"""`comparison.html`: one file without network, its tables readable without JavaScript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from potstill.reporting.comparison import (
    costs_of,
    lead_heading,
    lead_text,
    mean_text,
    metric_text,
    summary,
    title,
    value_text,
)
from potstill.reporting.comparison_plots import FIGURES
from potstill.reporting.format import format_value

HEADINGS = {
    "leads": ("How far the best is ahead", "Paired by seed. Orange: holds up over seeds; grey: not told apart."),
    "pareto": ("Quality against cost", "On the front: no other run is better for the same or a lower cost."),
    "importance": (
        "What matters",
        "Functional ANOVA: how much of the spread between these runs each key explains. Shares add up to 1, noise "
        "included; keys that were varied together share theirs.",
    ),
    "slices": ("One key at a time", "Every point is a run; hover for its name and its overrides."),
    "parallel": ("All keys together", "Every line is a run; the darker, the better."),
}


@dataclass(frozen=True)
class Column:
    name: str
    title: str = ""
    number: bool = False
    wide: bool = False
    code: bool = False
    status: bool = False


@dataclass(frozen=True)
class Cell:
    """order: what a click on the heading sorts by; None: the text."""

    text: str
    order: float | None = None
    mark: bool = False


Row = dict[str, Any]


def page(comparison: dict[str, Any], places: Sequence[str]) -> str:
    """The whole page. places: what was compared."""
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["zip"] = lambda first, second: zip(first, second, strict=True)
    return environment.get_template("comparison.html.jinja").render(
        heading=title(comparison),
        places=places,
        notes=comparison["notes"],
        summary=summary(comparison),
        implied=comparison["implied_keys"],
        board=_board(comparison),
        not_ranked=_not_ranked(comparison),
        worst=_worst(comparison),
        runs=_runs(comparison),
        figures=_figures(comparison),
    )


def _figures(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """Heading, text and markup of each figure that shows something; the first brings plotly.js along."""
    from plotly.io import to_html

    drawn = {name: figure for name, draw in FIGURES.items() if (figure := draw(comparison)) is not None}
    options = {"full_html": False, "config": {"displayModeBar": False, "responsive": True}}
    return [
        {
            "heading": HEADINGS[name][0],
            "text": HEADINGS[name][1],
            "plot": to_html(figure, include_plotlyjs=number == 0, div_id=name, **options),
        }
        for number, (name, figure) in enumerate(drawn.items())
    ]


def _board(comparison: dict[str, Any]) -> dict[str, Any]:
    metric, cost = comparison["metric"], comparison["cost"]
    keys, has_seeds = comparison["keys"], any(group["num_seeds"] > 1 for group in comparison["groups"][1:])
    has_costs = len(costs_of(comparison)) > 1
    columns = [Column("#", number=True), Column("runs", wide=True)]
    for key, short in keys.items():
        is_number = _is_number(comparison, key)
        columns.append(Column(short, title=key, number=is_number, wide=not is_number))
    columns += [Column(metric, number=True)]
    columns += [
        Column("seeds", number=True),
        Column(lead_heading(metric), number=True),
        Column("over seeds"),
    ] * has_seeds
    columns += [Column(cost, number=True)] * has_costs
    rows = []
    for group in comparison["groups"]:
        lead = group["best_leads_by"]
        cells = [Cell(str(group["place"]), group["place"]), Cell(", ".join(group["runs"]))]
        cells += [_value_cell(group["values"][key]) for key in keys]
        cells += [Cell(mean_text(metric, group).replace("+-", "\N{PLUS-MINUS SIGN}"), group["mean"])]
        if has_seeds:
            cells += [Cell(str(group["num_seeds"]), group["num_seeds"])]
            cells += [
                Cell(lead_text(metric, lead), lead["value"] if lead else 0.0),
                Cell(lead["verdict"] if lead else ""),
            ]
        if has_costs:
            value = group["means"].get(cost)
            cells += [Cell(metric_text(cost, value), value, mark=bool(group["is_on_front"]))]
        rows.append({"cells": cells, "is_best": group["place"] == 1})
    return {"columns": columns, "rows": rows}


def _not_ranked(comparison: dict[str, Any]) -> dict[str, Any]:
    columns = [Column("run"), Column("status", status=True), Column("own overrides", wide=True, code=True)]
    rows = (
        (row["run"], row["status"], " ".join(row["overrides"]), row["reason"] or "") for row in comparison["not_ranked"]
    )
    return {"columns": [*columns, Column("reason", wide=True)], "rows": [_text_row(row) for row in rows]}


def _worst(comparison: dict[str, Any]) -> dict[str, Any]:
    columns = [Column("run"), Column("slice"), Column("value", number=True), Column("examples", number=True)]
    rows = []
    for run in comparison["runs"]:
        if worst := run["worst_slice"]:
            value = Cell(f"{worst['metric']} {format_value(worst['metric'], worst['value'])}", worst["value"])
            count = Cell(format_value("n", worst["n"]), worst["n"])
            rows.append({"cells": [Cell(run["name"]), Cell(worst["slice"]), value, count], "is_best": False})
    return {"columns": columns, "rows": rows}


def _runs(comparison: dict[str, Any]) -> dict[str, Any]:
    """Every run with all its metrics, as far as it came."""
    metrics = list(
        dict.fromkeys([comparison["metric"], *(name for run in comparison["runs"] for name in run["metrics"])])
    )
    columns = [Column("run"), Column("status", status=True), Column("own overrides", wide=True, code=True)]
    columns += [Column("seed", number=True), *(Column(name, number=True) for name in metrics)]
    rows = []
    for run in comparison["runs"]:
        cells = [Cell(run["name"]), Cell(run["status"]), Cell(" ".join(run["overrides"]))]
        cells += [_value_cell("" if run["seed"] is None else run["seed"])]
        cells += [Cell(metric_text(name, run["metrics"].get(name)), run["metrics"].get(name)) for name in metrics]
        rows.append({"cells": cells, "is_best": False})
    return {"columns": columns, "rows": rows}


def _is_number(comparison: dict[str, Any], key: str) -> bool:
    return all(isinstance(group["values"][key], int | float) for group in comparison["groups"])


def _value_cell(value: Any) -> Cell:
    return Cell(value_text(value), float(value) if isinstance(value, int | float) else None)


def _text_row(texts: Iterable[str]) -> Row:
    return {"cells": [Cell(text) for text in texts], "is_best": False}
