"""Elements of HTML and SVG, with everything in them escaped, and the ticks of an axis."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup, escape

VOID = frozenset({"line", "circle", "rect", "path", "polyline"})


def element(name: str, *children: object, **attributes: object) -> Markup:
    """`element("text", label, class_="axis", text_anchor="end")`. Attributes that are None are left out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    head = Markup("").join(Markup(' {}="{}"').format(key, _plain(value)) for key, value in given.items())
    if name in VOID:
        return Markup("<{}{}/>").format(Markup(name), head)
    body = Markup("").join(escape(child) for child in children)
    return Markup("<{}{}>{}</{}>").format(Markup(name), head, body, Markup(name))


def breakable(text: str) -> Markup:
    """The text, which may go on in a new line behind `_`, `=` and `/` (names are long), not before a %."""
    return Markup(re.sub(r"([_=/])(?=\w)", r"\1<wbr>", str(escape(text))).replace(" %", "&nbsp;%"))


def percent(share: float) -> str:
    """A coordinate in percent of the drawing: such drawings widen without stretching what is in them."""
    return f"{100 * share:.2f}%"


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`. text: how a value on it is written."""

    low: float
    high: float
    text: Callable[[float], str]

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one; what lies beyond is put on the end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers, about `count` of them."""
        exact = (self.high - self.low) / count
        power = 10 ** math.floor(math.log10(exact))
        step = min((1, 2, 2.5, 5, 10), key=lambda factor: abs(factor * power - exact)) * power
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


def axis_over(values: list[float], text: Callable[[float], str], *, bounds: tuple[float, float] | None = None) -> Axis:
    """An axis that holds all `values` with a little room at the ends, none of it outside of `bounds`."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.05 * (abs(high) or 1.0)
    low, high = low - room, high + room
    if bounds:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Axis(low, high, text) if high > low else Axis(low - 0.5, high + 0.5, text)


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
