"""What can be said of a text without a model: columns beside the declared slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

QUARTERS = (25, 50, 75)


def length_buckets(texts: Sequence[str], like: Sequence[str] | None = None) -> list[str]:
    """Each text's length in words as one of four ranges, about equally full for `like` (default: for `texts`)."""
    lengths, others = _lengths(texts), _lengths(texts if like is None else like)
    edges = sorted({int(edge) for edge in np.percentile(others, QUARTERS)}) if len(others) else []
    names = [f"{low + 1}-{high} words" for low, high in zip([-1, *edges], edges, strict=False)]
    names = [*names, f"over {edges[-1]} words" if edges else "any"]
    return [names[place] for place in np.searchsorted(edges, lengths)]


def first_words(texts: Sequence[str]) -> list[str]:
    """Each text's first word: "what", "how", "please"."""
    return [(text.split() or ["(none)"])[0] for text in texts]


def _lengths(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]
