"""`mined.json` and `gain.json` on the terminal: what to act on first, the rest in the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

MAX_ROWS = 10
MAX_TEXT = 40  # characters


def print_mined(mined: Mapping[str, Any], console: Console | None = None) -> None:
    """To be read at 80 columns and without colour."""
    _print(_mined(mined), console)


def print_gain(gained: Mapping[str, Any], console: Console | None = None) -> None:
    _print(_gained(gained), console)


def plain_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for a table whose cells hold one value each."""
    plain = (int, float, str, NoneType)
    return [{name: value if isinstance(value, plain) else str(value) for name, value in row.items()} for row in rows]


def _print(parts: Iterator[str | Table], console: Console | None) -> None:
    console = console or Console()
    for part in parts:
        console.print(Text(part) if isinstance(part, str) else part)


def _mined(mined: Mapping[str, Any]) -> Iterator[str | Table]:
    for split, each in mined["splits"].items():
        yield f"{split}: {each['n']:,} items, {each['failures']:,} where the teacher is right and the student wrong"
    if mined["held_back"]:
        yield f"{mined['held_back']:,} validation items are held back, to measure a gain on."
    for what, reasons in mined["left_out"].items():
        listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        yield from [f"Left out of the {what}: {listed}"] if listed else []
    if not mined["clusters"]:
        yield "Nothing to mine: the student fails nowhere that its teacher does not."
        return
    table = _table("\nClusters of failures, the largest first", "cluster", "size", "share", "taken", "nearest member")
    for each in mined["clusters"][:MAX_ROWS]:
        share, nearest = f"{100 * each['share']:.1f} %", _short(each["nearest"][0])
        table.add_row(Text(each["name"]), f"{each['size']:,}", share, f"{each['proposed']:,}", Text(nearest))
    yield table
    if len(mined["clusters"]) > MAX_ROWS:
        yield f"... and {len(mined['clusters']) - MAX_ROWS} more in mined.json"
    yield _budget(mined)


def _gained(gained: Mapping[str, Any]) -> Iterator[str | Table]:
    found, shares = gained["difference"], gained["accuracy"]
    low, high = (100 * bound for bound in found["interval"])
    yield (
        f"{gained['n']:,} validation items that were not mined: {_share(shares['before'])} right before, "
        f"{_share(shares['after'])} after, {_share(shares['teacher'])} of the teacher's answers."
    )
    only_after, only_before = found["discordant"]
    yield (
        f"Gain {100 * found['value']:+.2f} points [{low:+.2f}, {high:+.2f}], p={found['p_value']:.2g} (McNemar): "
        f"{only_after:,} items won, {only_before:,} lost."
    )
    if gained["clusters"]:
        table = _table("\nFailures by cluster, the worst before first", "cluster", "n", "before", "after")
        for each in gained["clusters"][:MAX_ROWS]:
            rates = _share(each["before"]["value"]), _share(each["after"]["value"])
            table.add_row(Text(each["name"]), f"{each['before']['n']:,}", *rates)
        yield table
    lost = [each for each in gained["slices"] if each["value"] < 0]
    if lost:
        table = _table(f"\nRegressions: {len(lost)} slices lost, the most first", "slice", "n", "points", "p (Holm)")
        for each in lost[:MAX_ROWS]:
            p_value = "-" if each["p_holm"] is None else f"{each['p_holm']:.2g}"
            table.add_row(Text(each["slice"]), f"{each['n']:,}", f"{100 * each['value']:+.1f}", p_value)
        yield table
    yield f"\nStop: {gained['stop']}." if gained["stop"] else "\nGo on: another round may be worth its cost."


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _budget(mined: Mapping[str, Any]) -> str:
    budget = mined["budget"]
    left = "" if budget["left"] is None else f", of {budget['left']:,} left in all"
    proposed = f"{budget['proposed']:,} of a pool of {mined['pool']:,}, {mined['pick']}" if mined["pool"] else "no pool"
    asks = f"{budget['asked_for']:,} to be written by a teacher of text"
    return f"\nBudget {budget['round']:,}{left}. Proposals: {proposed}; or {asks}."


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else f"{line[:MAX_TEXT]}..."


def _table(title: str, *columns: str) -> Table:
    style = {"title_justify": "left", "title_style": "bold", "box": SIMPLE_HEAD}
    table = Table(title=title, show_edge=False, padding=(0, 1, 0, 0), **style)  # type: ignore[arg-type]
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and column != "nearest member" else "left")
    return table
