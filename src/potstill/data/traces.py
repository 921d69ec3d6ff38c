"""How long the reasoning may be that a student learns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from potstill.data.splits import select
from potstill.errors import UserError, nearest_hint

LONGER = ("drop", "truncate")
STEP = re.compile(r"[.!?](?=\s)|\n")  # ends one; the point of 3.5 does not
Ends = Callable[[str], list[int]]  # of a text's tokens, in characters


@dataclass(frozen=True)
class Trace:
    """column: of the export. max_tokens: null: as long as they are. longer: what becomes of those that are longer."""

    column: str = "reasoning"
    max_tokens: int | None = None
    longer: str = "drop"

    def __post_init__(self) -> None:
        if self.longer not in LONGER:
            hint = nearest_hint(self.longer, LONGER)
            raise UserError("data.source.trace.longer", self.longer, "is not one of the choices.", hint)
        if self.max_tokens is not None and self.max_tokens < 1:
            problem = "leaves no trace."
            raise UserError("data.source.trace.max_tokens", self.max_tokens, problem, "For example: 512, or null")

    def fitted(self, text: str | None, ends: Ends) -> str | None:
        """The text itself, or as many whole steps of it as fit; None where it goes, or not one step fits."""
        if text is None or self.max_tokens is None:
            return text
        tokens = ends(text)
        if len(tokens) <= self.max_tokens:
            return text
        last = tokens[self.max_tokens - 1]
        steps = [step.end() for step in STEP.finditer(text) if step.end() <= last]
        return text[: steps[-1]].rstrip() if steps and self.longer == "truncate" else None


def fit(table: Dataset, trace: Trace, ends: Ends, left_out: list[dict[str, Any]]) -> Dataset:
    """The rows, their traces as long as they may be; left_out: gains those that went, and says what was cut."""
    texts = table[trace.column][:]
    fitted = [trace.fitted(text, ends) for text in texts]
    is_kept = [text is None or found is not None for text, found in zip(texts, fitted, strict=True)]
    for asked, text, found in zip(table["prompt"][:], texts, fitted, strict=True):
        if text != found:
            what = "truncated" if found is not None else "left out"
            reason = f"{trace.column} of {len(ends(text))} tokens: {what}"
            left_out.append({"reason": reason, "origin": "teacher", "asked": asked})
    column = table.features[trace.column]
    changed = table.remove_columns(trace.column).add_column(trace.column, fitted, feature=column)  # type: ignore[call-arg]
    return select(changed, is_kept)


def shortest(table: Dataset, ends: Ends, left_out: list[dict[str, Any]]) -> Dataset:
    """Of all samples to a row the one of the fewest tokens, reasoning included; the first, where several have these."""
    columns = [table[name][:] for name in ("row", "sample", "prompt", "raw", "reasoning")]
    best: dict[int, tuple[int, int]] = {}  # row -> tokens, place
    lengths = [len(ends(raw)) + len(ends(reasoning or "")) for *_, raw, reasoning in zip(*columns, strict=True)]
    for place, (row, length) in enumerate(zip(columns[0], lengths, strict=True)):
        best[row] = min(best.get(row, (length, place)), (length, place))
    kept = {place for _, place in best.values()}
    for place, (row, sample, asked, *_) in enumerate(zip(*columns, strict=True)):
        if place not in kept:
            reason = f"longer: {lengths[place]} tokens, another sample has {best[row][0]}"
            left_out.append({"reason": reason, "origin": "teacher", "asked": asked, "sample": sample})
    return select(table, (place in kept for place in range(len(table))))
