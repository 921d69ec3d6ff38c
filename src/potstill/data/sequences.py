"""Text, prompt with completion, and conversations as tokens, and which of them are scored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from potstill.data.batch import IGNORE
from potstill.errors import UserError

Messages = Sequence[dict[str, Any]]

GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")  # marks the assistant's words inside a chat template


@dataclass(frozen=True)
class Tokens:
    """One sequence: ids, whether each is scored, and the UTF-8 bytes of text each stands for (0: special tokens)."""

    ids: list[int]
    scored: list[bool]
    num_bytes: list[int]

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(self.ids + other.ids, self.scored + other.scored, self.num_bytes + other.num_bytes)

    def cut(self, max_length: int) -> Tokens:
        return Tokens(self.ids[:max_length], self.scored[:max_length], self.num_bytes[:max_length])

    @property
    def labels(self) -> list[int]:
        return [token if scored else IGNORE for token, scored in zip(self.ids, self.scored, strict=True)]

    @property
    def num_rows(self) -> int:
        """Tokens a model can be scored on: nothing predicts the first one."""
        return sum(self.scored[1:])

    @property
    def scored_bytes(self) -> int:
        return sum(size for size, scored in zip(self.num_bytes[1:], self.scored[1:], strict=True) if scored)


def plain(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Tokens]:
    """Every token scored, those the tokenizer adds of itself included."""
    return [tokens for tokens, _ in _tokenise(tokenizer, texts, scored=True, special=True)]


def prompted(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], completions: Sequence[str]) -> list[Tokens]:
    """The prompt unscored; the completion scored, and the end of sequence after it where the tokenizer has one.

    The two are tokenised apart, because a model that answers a prompt has seen it tokenised alone.
    """
    opening, closing = _special([_beginning(tokenizer)], scored=False), _special([tokenizer.eos_token_id], scored=True)
    pairs = zip(
        _tokenise(tokenizer, prompts, scored=False, special=False),
        _tokenise(tokenizer, completions, scored=True, special=False),
        strict=True,
    )
    return [opening + prompt + completion + closing for (prompt, _), (completion, _) in pairs]


def conversations(tokenizer: PreTrainedTokenizerBase, all_messages: Sequence[Messages]) -> list[Tokens]:
    """The chat template's rendering of the messages; what the assistant says is scored.

    Which tokens these are is what the template says (its `generation` blocks), else what follows the prompt of each
    assistant turn. Raises UserError where the tokenizer has no template, or one that refuses these messages.
    """
    with chat_template(tokenizer):
        return [_conversation(tokenizer, messages) for messages in all_messages]


@contextmanager
def chat_template(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Raises UserError where there is none, or where it refuses what is rendered meanwhile."""
    if not tokenizer.chat_template:
        problem = "has no chat template, so conversations cannot be rendered."
        raise UserError("student.tokenizer", tokenizer.name_or_path, problem, "Choose a tokenizer of a chat model.")
    try:
        yield
    except TemplateError as error:
        problem = f"the tokenizer's chat template refuses a conversation: {error}"
        raise UserError("data.columns.messages", "messages", problem, "Mend the roles or their order.") from error


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, prompt: bool = False) -> str:
    """prompt: with what the template puts before an answer."""
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=prompt))


def _tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, scored: bool, special: bool
) -> list[tuple[Tokens, list[tuple[int, int]]]]:
    """Each text's tokens, and from where to where in the text each reaches, in characters."""
    encoded: Any = tokenizer(list(texts), add_special_tokens=special, return_offsets_mapping=True, verbose=False)
    specials, sequences = set(tokenizer.all_special_ids), []
    for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        position, num_bytes = 0, []
        for token, (_, end) in zip(ids, offsets, strict=True):
            num_bytes.append(0 if token in specials else len(text[position:end].encode()))
            position = max(position, end)
        sequences.append((Tokens(ids, [scored] * len(ids), num_bytes), offsets))
    return sequences


def _special(ids: Sequence[Any], *, scored: bool) -> Tokens:
    """Tokens that stand for no text; those that a tokenizer does not have are None, and left out."""
    present = [int(token) for token in ids if token is not None]
    return Tokens(present, [scored] * len(present), [0] * len(present))


def _beginning(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The token that this tokenizer puts before every text, or None."""
    begins: Any = tokenizer("")["input_ids"]
    return tokenizer.bos_token_id if begins[:1] == [tokenizer.bos_token_id] else None


def _conversation(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> Tokens:
    text = render(tokenizer, messages)
    ((tokens, offsets),) = _tokenise(tokenizer, [text], scored=False, special=False)
    if GENERATION_BLOCK.search(str(tokenizer.chat_template)):
        scored = _by_template(tokenizer, messages)
    else:
        turns = _turns(tokenizer, messages, text)
        # a token that reaches into a turn counts as the turn's, as it does where templates mark their blocks
        scored = [any(end > first and start < last for first, last in turns) for start, end in offsets]
    return Tokens(tokens.ids, scored, tokens.num_bytes)


def _by_template(tokenizer: PreTrainedTokenizerBase, messages: Messages) -> list[bool]:
    rendered: Any = tokenizer.apply_chat_template(list(messages), return_dict=True, return_assistant_tokens_mask=True)
    return [bool(scored) for scored in rendered["assistant_masks"]]


def _turns(tokenizer: PreTrainedTokenizerBase, messages: Messages, text: str) -> list[tuple[int, int]]:
    """Where in `text` the assistant's turns stand: after the prompt that asks for each, to the turn's end."""
    if messages and messages[0]["role"] == "assistant":
        problem = "the assistant begins a conversation, so nothing says where the template puts what it says."
        fix = "Use a template with {% generation %} blocks, or leave such conversations out."
        raise UserError("data.columns.messages", "messages", problem, fix)
    spans = []
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            before = render(tokenizer, messages[:index], prompt=True)
            after = render(tokenizer, messages[: index + 1])
            if not (after.startswith(before) and text.startswith(after)):
                problem = "the tokenizer's chat template renders earlier turns anew when later ones follow."
                fix = "Use a template with {% generation %} blocks, or one answer per conversation."
                raise UserError("data.columns.messages", "messages", problem, fix)
            spans.append((len(before), len(after)))
    return spans
