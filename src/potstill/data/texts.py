"""Examples as texts: what a model is given, and what it should say."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from potstill.audit.texts import Texts

PROMPTS = ("text", "text_pair", "prompt", "anchor")
ANSWERS = ("completion", "positive")


def texts_of(table: Dataset) -> Texts:
    """A tidy table's (`columns.tidy`) prompts and, where it has some, answers.

    Of a conversation the assistant's turns are the answer. Of images the prompt is the hash of their content: equal for
    equal pixels, and alike for nothing else.
    """
    if "messages" in table.column_names:
        conversations: Any = table["messages"][:]
        return Texts(*([_turns(each, is_answer) for each in conversations] for is_answer in (False, True)))
    return Texts(_joined(table, PROMPTS) or table["content"][:], _joined(table, ANSWERS) or None)


def _turns(messages: list[dict[str, str]], is_answer: bool) -> str:
    return "\n".join(each["content"] for each in messages if (each["role"] == "assistant") == is_answer)


def _joined(table: Dataset, names: tuple[str, ...]) -> list[str]:
    columns = [table[name][:] for name in names if name in table.column_names]
    return ["\n".join(parts) for parts in zip(*columns, strict=True)]
