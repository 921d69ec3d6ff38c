"""Pairs of texts that are nearly the same: candidates by MinHash, each confirmed by its true Jaccard similarity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from datasketch import MinHash, MinHashLSH

from potstill.audit.texts import Progress, character_grams, jaccard, untracked

NUM_PERMUTATIONS = 128
MAX_MISSED = 1e-3  # chance that a pair just at the threshold is no candidate
CHUNK = 500  # texts whose signatures are held at once


@dataclass(frozen=True)
class Pair:
    """`first` and `second`: numbers of the two texts, each in its own list."""

    first: int
    second: int
    jaccard: float


def similar_pairs(
    first: Sequence[str], second: Sequence[str], threshold: float, progress: Progress = untracked, what: str = ""
) -> Iterator[Pair]:
    """Pairs of a text of `first` and one of `second` whose character grams have a Jaccard similarity >= `threshold`.

    Both normalised (`texts.normalise`); empty texts match nothing. Signatures of `first` are kept, so it should be the
    smaller list. Candidates are those that agree on one band of their MinHash signatures at least (Broder 1997, "On the
    resemblance and containment of documents"; bands: Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets",
    3.4); their similarity is then computed, so that no pair below the threshold is among them.
    """
    bands = bands_for(threshold)
    index = MinHashLSH(num_perm=NUM_PERMUTATIONS, params=bands)
    for number, signature in _signatures(first):
        index.insert(number, signature)
    starts = range(0, len(second), CHUNK)
    for start in progress(starts, what):
        for place, signature in _signatures(second[start : start + CHUNK]):
            candidates: list[int] = sorted(index.query(signature))  # type: ignore[arg-type]
            yield from _confirmed(first, second, candidates, start + place, threshold)


def bands_for(threshold: float) -> tuple[int, int]:
    """Bands and rows of each: the longest rows, so the fewest candidates, that miss at most `MAX_MISSED`."""
    for num_rows in range(NUM_PERMUTATIONS, 1, -1):
        num_bands = NUM_PERMUTATIONS // num_rows
        if (1 - threshold**num_rows) ** num_bands <= MAX_MISSED:
            return num_bands, num_rows
    return NUM_PERMUTATIONS, 1


def _signatures(texts: Sequence[str]) -> Iterator[tuple[int, MinHash]]:
    numbers = [number for number, text in enumerate(texts) if text]
    grams = [[gram.encode() for gram in character_grams(texts[number])] for number in numbers]
    return zip(numbers, MinHash.generator(grams, num_perm=NUM_PERMUTATIONS), strict=True)


def _confirmed(
    first: Sequence[str], second: Sequence[str], candidates: list[int], number: int, threshold: float
) -> Iterator[Pair]:
    grams = character_grams(second[number])
    for candidate in candidates:
        similarity = jaccard(character_grams(first[candidate]), grams)
        if similarity >= threshold:
            yield Pair(candidate, number, similarity)
