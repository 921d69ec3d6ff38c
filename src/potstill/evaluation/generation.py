"""What a generated answer is worth against its reference: pure functions on text, and their means over N answers."""

# N answers

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEASURES = (
    *("exact_match", "rouge_l", "numeric_match", "length_ratio"),
    *("truncated", "repetitive", "empty", "format_valid"),
)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
FINAL = "####"  # before the final answer of GSM8K
REPEATED_WORDS = 4  # of a run that counts as said again
REPETITIVE = 0.3  # share of an answer's runs that were said before, from which on it goes in circles


def normalised(text: str) -> str:
    """Unicode in one form, lower case, white space as single blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def exact_match(answer: str, reference: str) -> bool:
    return normalised(answer) == normalised(reference)


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words. Lin 2004, "ROUGE: a package for automatic evaluation", section 3.

    Two empty texts are alike: 1. Words are what white space separates, in lower case; no stemming.
    """
    first, second = normalised(answer).split(), normalised(reference).split()
    if not first or not second:
        return float(first == second)
    return 2 * _common(first, second) / (len(first) + len(second))


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    before = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if word == other else max(before[place + 1], row[place]))
        before = row
    return before[-1]


def final_number(text: str) -> float | None:
    """The number behind the last `####`, as GSM8K writes it; without that mark the last number of the text."""
    _, mark, tail = text.rpartition(FINAL)
    found = NUMBER.findall(tail if mark else text)
    if not found:
        return None
    return float(found[0 if mark else -1].replace(",", ""))


def numeric_match(answer: str, reference: str) -> bool | None:
    """The same final number; None where the reference holds none."""
    wanted = final_number(reference)
    return None if wanted is None else final_number(answer) == wanted


def repetition(text: str) -> float:
    """Share of runs of four words that the text said before; 0 of shorter texts."""
    words = normalised(text).split()
    runs = [tuple(words[start : start + REPEATED_WORDS]) for start in range(len(words) - REPEATED_WORDS + 1)]
    return 1 - len(Counter(runs)) / len(runs) if runs else 0.0


def score_answers(
    answers: Sequence[str],
    references: Sequence[str],
    *,
    truncated: Sequence[bool],
    is_valid: Callable[[str], bool] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Of every answer each measure, `[N]`, `nan` where there is nothing to judge it by; and the words of both texts.

    truncated: ended at the limit of tokens. is_valid: the form that was asked for.
    """
    pairs = list(zip(answers, references, strict=True))
    columns = {
        "exact_match": [exact_match(*pair) for pair in pairs],
        "rouge_l": [rouge_l(*pair) for pair in pairs],
        "numeric_match": [math.nan if (match := numeric_match(*pair)) is None else match for pair in pairs],
        "truncated": list(truncated),
        "repetitive": [repetition(answer) > REPETITIVE for answer in answers],
        "empty": [not answer.strip() for answer in answers],
        "format_valid": [math.nan if is_valid is None else is_valid(answer) for answer in answers],
        "words": [len(answer.split()) for answer in answers],
        "reference_words": [len(reference.split()) for reference in references],
    }
    return {name: np.array(values, dtype=float) for name, values in columns.items()}


def measure_generation(columns: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """The block `generation`, of what `score_answers` found: means over the answers that can be judged, `nan` where
    there are none. length_ratio: words of all answers over words of all references.
    """
    words, reference_words = (float(columns[name].sum()) for name in ("words", "reference_words"))
    length_ratio = words / reference_words if reference_words else math.nan
    means = {name: length_ratio if name == "length_ratio" else _mean(columns[name]) for name in MEASURES}
    return {"n": len(columns["empty"]), **means}


def _mean(values_N: NDArray[np.float64]) -> float:
    known_N = values_N[np.isfinite(values_N)]
    return float(known_N.mean()) if len(known_N) else math.nan
