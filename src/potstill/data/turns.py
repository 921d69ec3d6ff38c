"""A conversation as a prompt with its answer: all that stands before the assistant's last turn, and that turn."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedTokenizerBase

from potstill.data.sequences import Messages, chat_template, render

ANSWER = "answer"  # stands for one while it is looked what follows


def last_answer(messages: Messages) -> int | None:
    """The number of the assistant's last turn; None where there is none, or nothing before it."""
    places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    return places[-1] if places and places[-1] > 0 else None


def opening(tokenizer: PreTrainedTokenizerBase, messages: Messages, answer: int) -> list[int]:
    """Tokens of what stands before turn `answer`, and of what the template puts before an answer."""
    with chat_template(tokenizer):
        text = render(tokenizer, messages[:answer], prompt=True)
    return _ids(tokenizer, text)


def turn_end(tokenizer: PreTrainedTokenizerBase, messages: Messages, answer: int) -> int | None:
    """The special token that the template puts after turn `answer`; None where it marks the end by none.

    It may be another than the tokenizer's `eos_token`, which ends texts.
    """
    turn = {**messages[answer], "content": ANSWER}
    with chat_template(tokenizer):
        _, _, rest = render(tokenizer, [*messages[:answer], turn]).rpartition(ANSWER)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    return next((token for token in _ids(tokenizer, rest) if token in special), None)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    encoded: Any = tokenizer(text, add_special_tokens=False, verbose=False)
    return encoded["input_ids"]
