"""Plots of one row a slice: dots with their intervals, and bars. HTML rows with a drawing in each, for any width.

A reader of the screen hears one description; the numbers are in the table that stands beside every plot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from potstill.reporting.markup import Axis, breakable, element, percent

LANE, MARGIN = 13, 5  # pixels: of one series within a row, and above and below them
RADIUS = 5.0
# By series, so that nobody has to tell them by colour: circle, diamond, square, triangles, hollow circle.
SHAPES = (
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
    "M0,-6L6,0L0,6L-6,0z",
    "M-4.5,-4.5H4.5V4.5H-4.5z",
    "M0,-6L5.5,4.5H-5.5z",
    "M0,6L5.5,-4.5H-5.5z",
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0zM-2.5,0a2.5,2.5 0 1,1 5,0a2.5,2.5 0 1,1 -5,0z",
)


@dataclass(frozen=True)
class Mark:
    """A value with its interval, if it has one. series: its place in the legend."""

    series: int
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """label: what it is of. text: the value in words. note: quieter, such as the number of examples."""

    label: str
    text: str
    marks: Sequence[Mark]
    note: str = ""


def dot_plot(rows: Sequence[Row], axis: Axis, description: str, series: Sequence[str]) -> Markup:
    """One lane a series. series: their names, for the legend."""
    height = 2 * MARGIN + LANE * len(series)
    drawn = [_row(row, _track(row.marks, axis, height), height) for row in rows]
    return _plot(drawn, axis, description, legend(series))


def bar_plot(rows: Sequence[Row], axis: Axis, description: str, reference: float | None = None) -> Markup:
    """One bar a row, from the axis' low end. reference: a value that is marked by a line across."""
    height = 2 * MARGIN + LANE
    drawn = [_row(row, _bar(row, axis, height, reference), height) for row in rows]
    return _plot(drawn, axis, description, Markup(""))


def legend(series: Sequence[str]) -> Markup:
    def entry(number: int, name: str) -> Markup:
        icon = element("svg", shape(number, 7, 7), width=14, height=14, class_="key")
        return element("li", icon, " ", name)

    return element("ul", *(entry(number, name) for number, name in enumerate(series)), class_="legend")


def shape(series: int, x: object, y: float) -> Markup:
    """The mark of a series around `x`, `y`; x may be in percent."""
    path = element("path", d=SHAPES[series % len(SHAPES)], fill_rule="evenodd")
    return element("svg", path, x=x, y=y, overflow="visible", class_=f"series-{series % len(SHAPES)}")


def _plot(rows: Sequence[Markup], axis: Axis, description: str, key: Markup) -> Markup:
    scale = element("div", element("span"), _scale(axis), element("span"), class_="plot-row plot-scale")
    body = element("div", scale, *rows, role="img", aria_label=description, class_="plot")
    return key + body


def _row(row: Row, track: Markup, height: int) -> Markup:
    label = element("span", breakable(row.label), class_="plot-label")
    text = element("span", row.text, element("small", row.note) if row.note else "", class_="plot-text")
    drawing = element("svg", track, height=height, class_="track", width="100%")
    return element("div", label, drawing, text, class_="plot-row")


def _scale(axis: Axis) -> Markup:
    texts = [
        element("text", axis.text(tick), x=percent(axis.place(tick)), y=11, text_anchor=_anchor(axis.place(tick)))
        for tick in axis.ticks()
    ]
    return element("svg", *texts, height=15, width="100%", class_="track scale")


def _anchor(place: float) -> str:
    """Texts at the ends stay inside."""
    return "start" if place < 0.06 else "end" if place > 0.94 else "middle"


def _grid(axis: Axis, height: int) -> Markup:
    places = [percent(axis.place(tick)) for tick in axis.ticks()]
    lines = [element("line", x1=place, x2=place, y1=0, y2=height, class_="grid") for place in places]
    return Markup("").join(lines)


def _track(marks: Sequence[Mark], axis: Axis, height: int) -> Markup:
    return _grid(axis, height) + Markup("").join(_mark(mark, axis) for mark in marks if mark.value is not None)


def _mark(mark: Mark, axis: Axis) -> Markup:
    assert mark.value is not None
    y = MARGIN + LANE * (mark.series + 0.5)
    drawn = shape(mark.series, percent(axis.place(mark.value)), y)
    if mark.low is None or mark.high is None:
        return drawn
    ends = {"x1": percent(axis.place(mark.low)), "x2": percent(axis.place(mark.high))}
    return element("line", **ends, y1=y, y2=y, class_=f"interval series-{mark.series % len(SHAPES)}") + drawn


def _bar(row: Row, axis: Axis, height: int, reference: float | None) -> Markup:
    mark = row.marks[0]
    drawn = _grid(axis, height)
    if mark.value is not None:
        width = percent(axis.place(mark.value))
        bar = {"class_": f"bar series-{mark.series % len(SHAPES)}", "rx": 2}
        drawn += element("rect", x=0, y=MARGIN, width=width, height=LANE, **bar)
    if reference is not None:
        place = percent(axis.place(reference))
        drawn += element("line", x1=place, x2=place, y1=0, y2=height, class_="reference")
    return drawn
