"""The prompts of a test set that are answered: those before completions, and conversations up to their last answer."""

# Q prompts

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.commands.shared import Source
from potstill.data.batch import IGNORE
from potstill.data.language import LanguageEncoder
from potstill.data.sequences import Messages
from potstill.data.turns import last_answer, opening, turn_end

log = logging.getLogger(__name__)

FORMS = ("completion", "messages")  # columns, of which a table has one if its texts have prompts
Asked = tuple[list[int], str]  # ids of a prompt's tokens, and the reference


@dataclass(frozen=True)
class Prompts:
    """ids: of the tokens of each. example: its number in the test set, `[Q]`. ends: tokens that end an answer, besides
    those that the tokenizer and the model name."""

    ids: list[list[int]]
    references: list[str]
    example: NDArray[np.int64]
    ends: tuple[int, ...] = ()


def chosen_prompts(source: Source, limit: int | None) -> Prompts | None:
    """Those that come first by the hash of their content, so that every run on this test set answers the same ones,
    however its file is sorted. None where the data has no prompts, or none leaves room for an answer.
    """
    table = source.data.examples["test"]
    form = next((form for form in FORMS if form in table.column_names), None)
    if form is None or limit == 0:
        return None
    hashes = source.data.item_hashes("test")
    by_hash = sorted(range(len(table)), key=lambda number: (hashes[number], number))
    usable = ((number, asked) for number in by_hash if (asked := _asked(source, table[number])))
    found = dict(sorted(islice(usable, limit)))
    if not found:
        log.warning("No prompt of the test set leaves room for an answer within data.max_length: none is answered.")
        return None
    ids, references = zip(*found.values(), strict=True)
    ends = _ends(source, table[min(found)]["messages"]) if form == "messages" else ()
    return Prompts(list(ids), list(references), np.array(list(found), dtype=np.int64), ends)


def has_prompts(source: Source) -> bool:
    return any(form in source.data.examples["test"].column_names for form in FORMS)


def _asked(source: Source, row: Mapping[str, Any]) -> Asked | None:
    """Prompt and reference of an example; None where either is missing."""
    if "messages" in row:
        return _of_conversation(source, row["messages"])
    labels = row["labels"]
    start = next(place for place, label in enumerate(labels) if label != IGNORE)
    return (row["input_ids"][:start], row["completion"]) if start else None


def _of_conversation(source: Source, messages: Messages) -> Asked | None:
    """None, too, where the student's texts end before the answer begins."""
    encoder, answer = source.data.encoder, last_answer(messages)
    assert isinstance(encoder, LanguageEncoder)
    if answer is None or len(ids := opening(encoder.tokenizer, messages, answer)) >= encoder.max_length:
        return None
    return ids, messages[answer]["content"]


def _ends(source: Source, messages: Messages) -> tuple[int, ...]:
    answer = last_answer(messages)
    assert source.tokenizer is not None
    assert answer is not None
    end = turn_end(source.tokenizer, messages, answer)
    return () if end is None else (end,)
