"""Answers of a closed list, such as the classes of a classifier: whatever their case and punctuation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from potstill.errors import UserError


class ClosedList:
    """names: the answers there are. Raises UserError for two that read alike, or one without letters and digits."""

    def __init__(self, names: Sequence[str]) -> None:
        self._by_words: dict[str, str] = {}
        for name in names:
            words = _words(name)
            if not words:
                problem = "has no letters or digits: no answer would be told from it."
                raise UserError("generation.labels", name, problem, "Name it in words.")
            if other := self._by_words.get(words):
                problem = f"reads as '{other}' does, but for case and punctuation."
                raise UserError("generation.labels", name, problem, "Name them so that a reader can tell them apart.")
            self._by_words[words] = name

    def spelled(self, answer: str) -> str:
        """The answer as the list has it; one that the list does not have, as it is."""
        return self._by_words.get(_words(answer), answer)


def _words(text: str) -> str:
    """`Book flight.`, `book_flight` and `BOOK-FLIGHT` alike."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))
