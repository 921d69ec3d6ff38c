"""Plots of one number against another: reliability, and error against distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from potstill.reporting.markup import Axis, element
from potstill.reporting.row_plots import SHAPES, legend, shape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 420, 330, 52, 46, 12, 14  # user units; the drawing shrinks on a phone


@dataclass(frozen=True)
class Point:
    """low, high: the interval of y, where there is one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Frame:
    """The two axes, what stands beside them, and whether the diagonal is drawn."""

    x: Axis
    y: Axis
    x_title: str
    y_title: str
    has_diagonal: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM - TOP
        return LEFT + width * self.x.place(x), TOP + height * (1 - self.y.place(y))


def line_plot(lines: Sequence[Line], frame: Frame, description: str) -> Markup:
    diagonal = _segment(frame, (0, 0), (1, 1), "reference") if frame.has_diagonal else ""
    drawn = [_line(number, line, frame) for number, line in enumerate(lines)]
    box = f"0 0 {WIDTH} {HEIGHT}"
    drawing = element(
        "svg", _axes(frame), diagonal, *drawn, viewBox=box, role="img", aria_label=description, class_="chart"
    )
    return legend([line.name for line in lines]) + drawing


def _line(number: int, line: Line, frame: Frame) -> Markup:
    kind = f"series-{number % len(SHAPES)}"
    places = [frame.at(point.x, point.y) for point in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    bars = [
        _segment(frame, (point.x, point.low), (point.x, point.high), f"interval {kind}")
        for point in line.points
        if point.low is not None and point.high is not None
    ]
    marks = [shape(number, x, y) for x, y in places]
    return Markup("").join([element("polyline", points=path, class_=f"curve {kind}"), *bars, *marks])


def _axes(frame: Frame) -> Markup:
    (left, bottom), (right, top) = frame.at(frame.x.low, frame.y.low), frame.at(frame.x.high, frame.y.high)
    parts = []
    for tick in frame.x.ticks(4):
        x, _ = frame.at(tick, frame.y.low)
        parts.append(element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"))
        parts.append(element("text", frame.x.text(tick), x=x, y=bottom + 16, text_anchor="middle"))
    for tick in frame.y.ticks(4):
        _, y = frame.at(frame.x.low, tick)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", frame.y.text(tick), x=left - 6, y=y + 4, text_anchor="end"))
    middle = (top + bottom) / 2
    turned = f"rotate(-90 13 {middle:.1f})"
    parts.append(element("text", frame.x_title, x=(left + right) / 2, y=HEIGHT - 8, text_anchor="middle"))
    parts.append(element("text", frame.y_title, x=13, y=middle, text_anchor="middle", transform=turned))
    return Markup("").join(parts)


def _segment(frame: Frame, start: tuple[float, float], end: tuple[float, float], kind: str) -> Markup:
    (x1, y1), (x2, y2) = frame.at(*start), frame.at(*end)
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)
