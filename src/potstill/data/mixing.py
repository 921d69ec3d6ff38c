"""A teacher's text and gold examples in a ratio."""

from __future__ import annotations

from datasets import Dataset

from potstill.data.content import content_hash
from potstill.errors import UserError


def in_ratio(text: Dataset, gold: Dataset, gold_share: float, seed: int) -> tuple[Dataset, Dataset]:
    """As many rows of both as there are for this share of gold ones, none of them twice; in the order they have.

    Which, says the hash of (content, seed): a larger share holds the gold rows of a smaller one. Raises UserError.
    """
    if not 0 < gold_share < 1:
        problem = "must lie strictly between 0 and 1."
        raise UserError("data.source.gold_share", gold_share, problem, "For half: 0.5; for none: data.source.gold=null")
    total = min(len(text) / (1 - gold_share), len(gold) / gold_share)
    counts = round(total * (1 - gold_share)), round(total * gold_share)
    if not all(counts):
        problem = f"leaves {counts[0]} rows of the teacher's {len(text)} and {counts[1]} of {len(gold)} gold ones."
        raise UserError("data.source.gold_share", gold_share, problem, "Give both more rows, or another share.")
    first, second = (_chosen(table, count, seed) for table, count in zip((text, gold), counts, strict=True))
    return first, second


def _chosen(table: Dataset, count: int, seed: int) -> Dataset:
    hashes = sorted((content_hash(dict(row), seed), place) for place, row in enumerate(table))  # type: ignore[arg-type]
    return table.select(sorted(place for _, place in hashes[:count]))
