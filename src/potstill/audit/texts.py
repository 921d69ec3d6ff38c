"""Examples as texts, and what is compared of them."""

# E examples

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

CHARACTERS = 4  # of a gram: one word in a short sentence changes few, another sentence shares few

Progress = Callable[[Sequence[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Texts:
    """E examples of one split.

    prompt: what a model is given, `[E]`. answer: what it should say, `[E]`; None where that is a label.
    """

    prompt: Sequence[str]
    answer: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.answer is not None and len(self.answer) != len(self.prompt):
            raise ValueError(f"{len(self.answer)} answers to {len(self.prompt)} prompts")

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def fields(self) -> dict[str, Sequence[str]]:
        return {"prompt": self.prompt} | ({} if self.answer is None else {"answer": self.answer})


def normalise(text: str) -> str:
    """Letters and digits alone, in lower case, words one blank apart: what a reader would call the same text."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def character_grams(normalised: str) -> set[str]:
    """Every run of `CHARACTERS` characters; a shorter text is its own and only gram."""
    return {normalised[at : at + CHARACTERS] for at in range(max(1, len(normalised) - CHARACTERS + 1))}


def jaccard(first: set[str], second: set[str]) -> float:
    """Grams that both have, over grams that either has."""
    return len(first & second) / len(first | second)


def untracked(steps: Sequence[Any], _what: str) -> Iterable[Any]:
    """Progress that nobody watches."""
    return steps
