"""How much of a text stands, in runs of n words, in others."""

# E texts

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potstill.audit.texts import Progress, untracked

SHORTEST, LONGEST = 8, 13  # words
PERCENTILE = 5


@dataclass(frozen=True)
class Overlap:
    """Of E texts: the share of its words in runs of n that occur elsewhere, `nan` where it has fewer than n, `[E]`;
    and the number of a text that shares some, -1 where none does, `[E]`."""

    share: NDArray[np.float64]
    partner: NDArray[np.int64]


def adapted_n(lengths: Sequence[int]) -> int:
    """n for texts of these lengths in words: their 5th percentile, at least 8 and at most 13.

    Shorter runs are common phrases, longer ones miss copies with one word changed. Brown et al. 2020,
    arXiv:2005.14165, appendix C.
    """
    return int(np.clip(np.percentile(lengths, PERCENTILE), SHORTEST, LONGEST)) if len(lengths) else SHORTEST


def overlap(
    texts: Sequence[str], others: Sequence[str], n: int, progress: Progress = untracked, what: str = ""
) -> Overlap:
    """Of each of `texts`, normalised, how much stands in `others`.

    A word counts where any run of n words around it does (Touvron et al. 2023, arXiv:2307.09288, appendix A.6).
    """
    wanted = {run for text in texts for _, run in _runs(text, n)}
    owners: dict[str, int] = {}
    for number, other in enumerate(progress(others, what)):
        for _, run in _runs(other, n):
            if run in wanted:
                owners.setdefault(run, number)
    shares, partners = zip(*(_of_text(text, n, owners) for text in texts), strict=True) if texts else ((), ())
    return Overlap(np.array(shares, dtype=np.float64), np.array(partners, dtype=np.int64))


def _of_text(text: str, n: int, owners: dict[str, int]) -> tuple[float, int]:
    num_words = len(text.split())
    if num_words < n:
        return np.nan, -1
    covered, votes = np.zeros(num_words, dtype=bool), Counter[int]()
    for at, run in _runs(text, n):
        if run in owners:
            covered[at : at + n] = True
            votes[owners[run]] += 1
    return float(covered.mean()), min(votes, key=lambda other: (-votes[other], other)) if votes else -1


def _runs(text: str, n: int) -> Iterator[tuple[int, str]]:
    words = text.split()
    yield from ((at, " ".join(words[at : at + n])) for at in range(len(words) - n + 1))
