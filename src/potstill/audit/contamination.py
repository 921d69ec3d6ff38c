"""Which test items a model may have met in training, and what they do to its scores."""

# E test items

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from potstill.audit.near import similar_pairs
from potstill.audit.ngrams import adapted_n, overlap
from potstill.audit.rates import rate
from potstill.audit.texts import CHARACTERS, Progress, Texts, normalise, untracked

NEAR = 0.8  # Jaccard similarity of character grams from which on two texts are near-duplicates
OVERLAP = 0.8  # share of a text's words in shared runs from which on it is a copy (Touvron et al. 2023, A.6: "dirty")
KINDS = ("exact", "near", "ngram")  # of a match, the strongest first


@dataclass(frozen=True)
class Match:
    """A test item and what it was found in. jaccard: of the whole texts; share: of its words in shared runs."""

    test: int
    field: str
    split: str
    other: int
    kind: str
    jaccard: float | None = None
    share: float | None = None

    @property
    def order(self) -> tuple[int, float, int, str, str]:
        """The strongest first."""
        return KINDS.index(self.kind), -(self.jaccard or self.share or 0.0), self.test, self.split, self.field


def contamination(
    test: Texts,
    others: Mapping[str, Texts],
    *,
    threshold: float = NEAR,
    ngram: int | None = None,
    right: Mapping[str, ArrayLike] | None = None,
    progress: Progress = untracked,
) -> dict[str, Any]:
    """Test items that stand in `others` (train, validation, transfer), and each model's score without them.

    Three looks at prompts and, where there are any, at answers, all normalised: the same text; near-duplicates, whose
    character grams have a Jaccard similarity >= `threshold`; and texts of which `OVERLAP` of the words stand in runs of
    n words. n: `ngram`, else by the lengths of the test's texts. Answers of fewer than n words are not looked at: "yes"
    is in every training set.
    right: per model whether it was right, one value a test item, `nan` where nobody can say.
    Returns JSON types. `items` has every test item that was found, once, by its strongest match; `num_dirty` counts
    them, and `num_exact`, `num_near` and `num_ngram` add up to it.
    """
    looks = {name: _look(name, test, ngram) for name in test.fields}
    matches, splits = [], {}
    for split, texts in others.items():
        found = {
            name: _matches(look, texts.fields[name], split, threshold, progress)
            for name, look in looks.items()
            if name in texts.fields
        }
        splits[split] = {"n": len(texts)} | {name: _counts(each, looks[name]) for name, each in found.items()}
        matches += [match for each in found.values() for match in each]
    best = _strongest(matches)
    dirty_E = np.isin(np.arange(len(test)), list(best))
    return {
        "n": len(test),
        "num_dirty": len(best),
        **{f"num_{kind}": sum(match.kind == kind for match in best.values()) for kind in KINDS},
        "dirty": rate(dirty_E),
        "method": _method(looks, threshold),
        "splits": splits,
        "models": {name: _scores(values, dirty_E) for name, values in (right or {}).items()},
        "items": [_item(match, test, others[match.split]) for match in sorted(best.values(), key=lambda m: m.order)],
    }


@dataclass(frozen=True)
class Look:
    """One field of the test set: its normalised texts, empty where they are not looked at."""

    field: str
    texts: list[str]
    n: int

    @property
    def num_looked_at(self) -> int:
        return sum(map(bool, self.texts))

    @property
    def num_eligible(self) -> int:
        """Texts that have a run of n words."""
        return sum(len(text.split()) >= self.n for text in self.texts)


def _look(field: str, test: Texts, ngram: int | None) -> Look:
    texts = [normalise(text) for text in test.fields[field]]
    n = ngram or adapted_n([len(text.split()) for text in texts if text])
    if field == "answer":
        texts = [text if len(text.split()) >= n else "" for text in texts]
    return Look(field, texts, n)


def _matches(look: Look, others: Sequence[str], split: str, threshold: float, progress: Progress) -> list[Match]:
    """Of each text and kind at most one, the best."""
    what = f"{look.field}s of test in {split}"
    texts = [normalise(text) for text in others]
    place = {text: number for number, text in reversed(list(enumerate(texts)))}
    found = [
        Match(test, look.field, split, place[text], "exact", 1.0)
        for test, text in enumerate(look.texts)
        if text and text in place
    ]
    near: dict[int, Match] = {}
    for pair in similar_pairs(look.texts, texts, threshold, progress, f"near-duplicates: {what}"):
        if pair.first not in near or pair.jaccard > (near[pair.first].jaccard or 0):
            near[pair.first] = Match(pair.first, look.field, split, pair.second, "near", pair.jaccard)
    shared = overlap(look.texts, texts, look.n, progress, f"runs of {look.n} words: {what}")
    copied_E = np.nan_to_num(shared.share) >= OVERLAP
    found += near.values()
    return found + [
        Match(int(test), look.field, split, int(shared.partner[test]), "ngram", share=float(shared.share[test]))
        for test in np.flatnonzero(copied_E)
    ]


def _strongest(matches: list[Match]) -> dict[int, Match]:
    best: dict[int, Match] = {}
    for match in sorted(matches, key=lambda match: match.order):
        best.setdefault(match.test, match)
    return best


def _counts(matches: list[Match], look: Look) -> dict[str, Any]:
    """Each kind without those before it, as `KINDS` has them, so that the three add up."""
    best = _strongest(matches)
    kinds = {kind: sum(match.kind == kind for match in best.values()) for kind in KINDS}
    similar = {match.test for match in matches if match.kind != "ngram"}
    return kinds | {"at_threshold": len(similar), "found": len(best), "looked_at": look.num_looked_at}


def _method(looks: dict[str, Look], threshold: float) -> dict[str, Any]:
    fields = {
        name: {
            "ngram_words": look.n,
            "looked_at": look.num_looked_at,
            "eligible": look.num_eligible,
            "eligible_share": look.num_eligible / look.num_looked_at if look.num_looked_at else None,
        }
        for name, look in looks.items()
    }
    return {"characters": CHARACTERS, "jaccard": threshold, "overlap": OVERLAP, "fields": fields}


def _scores(values: ArrayLike, dirty_E: NDArray[np.bool_]) -> dict[str, Any]:
    """The share that is right of all, of the clean and of the dirty items, and what the dirty ones add to the first."""
    right_E = np.asarray(values, dtype=np.float64)
    if len(right_E) != len(dirty_E):
        raise ValueError(f"{len(right_E)} values for {len(dirty_E)} test items")
    known_E = np.isfinite(right_E)
    parts = {"all": known_E, "clean": known_E & ~dirty_E, "dirty": known_E & dirty_E}
    scores = {name: rate(right_E[mask_E] > 0) for name, mask_E in parts.items()}
    gain = [scores[name]["value"] for name in ("all", "clean")]
    return scores | {"gained": None if None in gain else gain[0] - gain[1]}


def _item(match: Match, test: Texts, other: Texts) -> dict[str, Any]:
    numbers = {name: value for name, value in (("jaccard", match.jaccard), ("share", match.share)) if value is not None}
    return {
        "item": match.test,
        "kind": match.kind,
        "field": match.field,
        "split": match.split,
        "other": match.other,
        **{name: round(value, 4) for name, value in numbers.items() if math.isfinite(value)},
        "text": test.fields[match.field][match.test],
        "other_text": other.fields[match.field][match.other],
    }


def is_copy(test: Texts, other: Texts, how: str) -> NDArray[np.bool_]:
    """Which examples of `other` have a prompt that is some test prompt, or (how="near") nearly one, one value each."""
    prompts = [normalise(text) for text in test.prompt]
    texts = [normalise(text) for text in other.prompt]
    wanted = set(prompts) - {""}
    copies = np.array([text in wanted for text in texts], dtype=bool)
    if how == "near":
        copies[[pair.second for pair in similar_pairs(prompts, texts, NEAR)]] = True
    return copies
