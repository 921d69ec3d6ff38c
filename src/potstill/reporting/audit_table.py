"""`audit.json` on the terminal: what to act on first, the rest in the files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

MAX_ROWS = 8
MAX_TEXT = 60  # characters


def print_audit(audit: dict[str, Any], console: Console | None = None) -> None:
    """Print what `commands.audit.audit_of` returned; to be read at 80 columns and without colour."""
    console = console or Console()
    for part in _parts(audit):
        console.print(Text(part) if isinstance(part, str) else part)


def _parts(audit: dict[str, Any]) -> Iterator[str | Table]:
    splits = ", ".join(f"{split} {n:,}" for split, n in audit["splits"].items())
    yield f"{audit['task']}: {splits}\n"
    yield from _contamination(audit["contamination"])
    yield from _coverage(audit["coverage"])
    for split, look in (audit["teacher_quality"] or {}).items():
        yield from _teacher(split, look)
    if audit["found_slices"]:
        yield from _found_slices(audit["found_slices"])


def _contamination(found: dict[str, Any]) -> Iterator[str | Table]:
    table = _table("Test items met in training", "in", "field", "exact", "near", "copied runs", "together")
    for split, counts in found["splits"].items():
        for field in found["method"]["fields"]:
            if field in counts:
                numbers = [counts[field][name] for name in ("exact", "near", "ngram", "found")]
                table.add_row(split, field, *map("{:,}".format, numbers))
    yield table
    method = found["method"]
    for field, look in method["fields"].items():
        runs = f"{look['ngram_words']} words: {_share(look['eligible_share'])} of the {look['looked_at']:,} {field}s"
        yield f"near: Jaccard >= {method['jaccard']} of character 4-grams. Runs of {runs} are long enough."
    yield f"Dirty: {_rate(found['dirty'])} of the test items."
    for model, scores in found["models"].items():
        yield f"{model}: right on {_rate(scores['clean'])} of the clean items, {_rate(scores['dirty'])} of the dirty."
    for item in found["items"][:3]:
        yield f"  {item['kind']}, test {item['item']} = {item['split']} {item['other']}: {_short(item['text'])}"
    yield ""


def _coverage(found: dict[str, Any]) -> Iterator[str | Table]:
    weak = [cell for cell in found["cells"] if cell["status"] in ("empty", "thin")]
    title = f"Cells that the transfer set lacks: {len(found['empty'])} empty, {len(found['thin'])} thin"
    table = _table(title, "cell", "status", "transfer", "share", "sample", "share", "rows to fill")
    for cell in weak[:MAX_ROWS]:
        rows = "-" if cell["rows_to_fill"] is None else f"{cell['rows_to_fill']:,}"
        shares = (_share(cell[f"{name}_share"]) for name in ("transfer", "sample"))
        counts = (f"{cell[f'num_{name}']:,}" for name in ("transfer", "sample"))
        numbers = [number for pair in zip(counts, shares, strict=True) for number in pair]
        table.add_row(Text(cell["cell"]), cell["status"], *numbers, rows)
    yield table if weak else title
    if len(weak) > MAX_ROWS:
        yield f"... and {len(weak) - MAX_ROWS} more in cells.csv"
    if found["distance"]:
        yield from _distance(found["distance"])
    yield ""


def _distance(found: dict[str, Any]) -> Iterator[str | Table]:
    middle, far = found["quantiles"]["50 %"], found["quantiles"]["95 %"]
    yield f"Distance to the nearest transfer example ({found['embedding']}): half within {middle:.2f}, 95 % {far:.2f}."
    for model, errors in found["errors"].items():
        rates = ", ".join(_share(each["value"]) for each in errors["bins"])
        yield f"{model}: wrong on {rates}, from the nearest fifth to the farthest."


def _teacher(split: str, look: dict[str, Any]) -> Iterator[str | Table]:
    if "overall" in look:
        yield f"Teacher on {split}: wrong on {_rate(look['overall'])} of the labelled examples."
        worse = [each for each in look["slices"] if each["is_worse"]]
        if worse:
            table = _table("Slices where it is worse, beyond chance", "slice", "wrong", "n", "p (Holm)")
            for each in worse[:MAX_ROWS]:
                table.add_row(Text(each["slice"]), _share(each["value"]), f"{each['n']:,}", f"{each['p_holm']:.1g}")
            yield table
        yield f"{look['num_review']:,} rows to look at, in review.csv ({look['review_method']})."
    if look["conflicts"]:
        yield f"{len(look['conflicts']):,} texts of {split} stand under more than one label: conflicts.csv."


def _found_slices(found: dict[str, Any]) -> Iterator[str | Table]:
    title = f"Where {found['target']}: found on {found['n_found_on']:,} items, tested on {found['n_tested_on']:,}"
    table = _table(title, "slice", "n", "rate", "elsewhere", "p (Holm)", "")
    for each in found["slices"][:MAX_ROWS]:
        rates = _share(each["error_rate"]), _share(each["rest"]["value"])
        outcome = "holds up" if each["holds_up"] else "does not"
        table.add_row(Text(each["name"]), f"{each['n']:,}", *rates, f"{each['p_holm']:.1g}", outcome)
    yield table if found["slices"] else f"{title}: none found."


def _rate(rate: dict[str, Any]) -> str:
    """`3.4 % (187 of 5,500)`."""
    return f"{_share(rate['value'])} ({rate['count']:,} of {rate['n']:,})"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT else f"{line[:MAX_TEXT]}..."


def _table(title: str, *columns: str) -> Table:
    style = {"title_justify": "left", "title_style": "bold", "box": SIMPLE_HEAD}
    table = Table(title=title, show_edge=False, padding=(0, 1, 0, 0), **style)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and column not in ("field", "status", "") else "left")
    return table
