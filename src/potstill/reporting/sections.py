"""What a report is made of: sections of words, tables and plots, for HTML, Markdown and W&B alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from potstill.reporting.format import MISSING, format_value
from potstill.reporting.line_plots import Line


def plain(value: Any) -> str:
    """Texts as they are, counts with separators, nothing as `-`."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else str(value)


def metric_text(name: str) -> Callable[[Any], str]:
    """Writes values of that metric or cost, with their unit."""
    return lambda value: format_value(name, value)


def interval_text(name: str) -> Callable[[Any], str]:
    """Writes `[low, high]` of that metric; nothing where it has no bounds."""

    def text(bounds: Any) -> str:
        low, high = bounds or (None, None)
        if low is None or high is None:
            return MISSING
        return between(format_value(name, low), format_value(name, high))

    return text


def between(low: str, high: str) -> str:
    """`83.0 to 85.0 %`: the unit once."""
    number, _, unit = low.partition(" ")
    return f"{number if unit and high.endswith(unit) else low} to {high}"


@dataclass(frozen=True)
class Column:
    """text: how its values are written for people. kind: `text`, `number`, `status` (of a gate) or `code`."""

    name: str
    text: Callable[[Any], str] = plain
    kind: str = "text"


def p_text(value: float | None) -> str:
    """Nobody needs to tell 1e-9 from 1e-300, and the smallest of them underflow to 0."""
    return MISSING if value is None else "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def number(name: str, metric: str | None = None) -> Column:
    """A column of counts, or of values of `metric`."""
    return Column(name, metric_text(metric) if metric else plain, "number")


@dataclass(frozen=True)
class Table:
    """rows: values, not texts, one a column; the first names the row.

    is_folded: it says what a plot shows, and is folded away beside it. is_stacked: on a phone its cells stand one below
    the other, as they are wide.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    is_folded: bool = False
    is_stacked: bool = False

    def texts(self) -> list[list[str]]:
        return [[column.text(value) for column, value in zip(self.columns, row, strict=True)] for row in self.rows]


@dataclass(frozen=True)
class Chart:
    """What W&B draws: of a section's first table a bar a row, `y` by `x` (names of two columns); or lines over `x`."""

    x: str
    y: str
    lines: Sequence[Line] = ()


@dataclass(frozen=True)
class Section:
    """key: its anchor on the page, its name in W&B. code: commands to copy. is_private: it quotes the test set."""

    key: str
    heading: str
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Markup] = ()
    chart: Chart | None = None
    code: Sequence[str] = ()
    is_private: bool = False
