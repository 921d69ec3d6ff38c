"""The report's sections as tables and charts of a W&B run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import Logger

from potstill.reporting.reading import Evaluation
from potstill.reporting.report import sections
from potstill.reporting.sections import Section, Table
from potstill.tracking.logger import wandb_runs


def log_report(loggers: Iterable[Logger], evaluation: Evaluation, page: Path) -> None:
    """`report/<section>` for every table (the second of a section is `-2`), `report/<section>/chart`, and the page."""
    for run in wandb_runs(loggers):
        logged = {name: value for section in sections(evaluation) for name, value in _media(section)}
        run.log({**logged, "report/page": wandb.Html(page.read_text(encoding="utf-8"), inject=False)})


def _media(section: Section) -> Iterator[tuple[str, Any]]:
    name = f"report/{section.key}"
    for number, table in enumerate(section.tables, 1):
        yield (name if number == 1 else f"{name}-{number}"), wandb_table(table)
    if section.chart and section.chart.lines:
        lines, axis = section.chart.lines, section.chart.x
        xs, ys = ([[getattr(point, side) for point in line.points] for line in lines] for side in ("x", "y"))
        keys = [line.name for line in lines]
        yield f"{name}/chart", wandb.plot.line_series(xs, ys, keys, f"{section.heading}: {section.chart.y}", axis)
    elif section.chart:
        chart, table = section.chart, wandb_table(section.tables[0])
        yield f"{name}/chart", wandb.plot.bar(table, chart.x, chart.y, f"{section.heading}: {chart.y}")


def wandb_table(table: Table) -> wandb.Table:
    """Numbers stay numbers, so that W&B sorts them; intervals are written as text."""
    rows = [
        [
            column.text(value) if isinstance(value, list) else value
            for column, value in zip(table.columns, row, strict=True)
        ]
        for row in table.rows
    ]
    columns = [column.name or "what" for column in table.columns]
    return wandb.Table(columns=columns, data=rows, allow_mixed_types=True)  # type: ignore[arg-type]
