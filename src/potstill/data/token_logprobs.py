"""What an endpoint says of each token that it wrote, in the student's own token ids.

The form is that of the OpenAI API: `{"content": [{"token", "bytes", "logprob", "top_logprobs": [...]}, ...]}`. Tokens
are text there; they are ids here only where the student cuts the text into the same tokens.
"""

# N tokens, T known classes of all tokens

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from potstill.errors import UserError

KEY = "data.columns.logprobs"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how tokenizers of SentencePiece spell a byte that is no letter
_SPACE = "\u2581"


class Known(NamedTuple):
    """Classes of each token, the most probable first: ids and log-probabilities, `[T]`, and how many of each, `[N]`."""

    ids: np.ndarray
    log_p: np.ndarray
    counts: np.ndarray


class Vocabulary:
    """The bytes that each id stands for, and the id of bytes. Raises UserError where a tokenizer does not say."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.end: Any = tokenizer.eos_token_id
        special, spelling = set(tokenizer.all_special_tokens), _spelling(tokenizer)
        tokens = sorted(tokenizer.get_vocab().items(), key=lambda pair: -pair[1])
        self.bytes = {number: token.encode() if token in special else spelling(token) for token, number in tokens}
        self.ids = {text: number for number, text in self.bytes.items() if text}  # of equal ones the lowest

    def known(self, said: str | None, ids: Sequence[int]) -> Known:
        """Of the scored tokens `ids` of one example. said: the record of its completion; None: nothing but the text.

        A token of which nothing is said, such as the end of the text, is taken as certain. Raises ValueError where the
        record is of other tokens.
        """
        content = (json.loads(said).get("content") or []) if said else []
        rows = [
            self._row(content[place] if place < len(content) else None, token, said) for place, token in enumerate(ids)
        ]
        counts = np.array([len(row) for row in rows], dtype=np.int64)
        pairs = [pair for row in rows for pair in row]
        numbers, values = [number for number, _ in pairs], [value for _, value in pairs]
        return Known(np.array(numbers, dtype=np.int64), np.array(values, dtype=np.float32), counts)

    def _row(self, entry: Mapping[str, Any] | None, token: int, said: str | None) -> list[tuple[int, float]]:
        if entry is None:
            if said and token != self.end:
                raise ValueError(f"it ends before the token {self.bytes[token]!r}")
            return [(token, 0.0)]
        if _bytes_of(entry) != self.bytes[token]:
            raise ValueError(f"it has the token {_bytes_of(entry)!r} where the student reads {self.bytes[token]!r}")
        found = {token: float(entry["logprob"])}
        for other in entry.get("top_logprobs") or []:
            number = self.ids.get(_bytes_of(other))
            if number is not None and number not in found:
                found[number] = float(other["logprob"])
        return sorted(found.items(), key=lambda pair: -pair[1])


def all_known(vocabulary: Vocabulary, said: Sequence[str | None], labels: Sequence[Sequence[int]]) -> Iterator[Known]:
    """labels: of each example, in its record's order. Raises UserError for the first record that is of other tokens."""
    for place, (record, tokens) in enumerate(zip(said, labels, strict=True)):
        try:
            yield vocabulary.known(record, tokens)
        except (ValueError, KeyError, TypeError) as error:
            problem = f"does not fit the student's tokens in training example {place}: {error}."
            fix = (
                "It takes the teacher's own tokenizer (student.tokenizer) and its text as it was said (data=generated)."
            )
            raise UserError(KEY, "logprobs", problem, fix) from error


def _bytes_of(entry: Mapping[str, Any]) -> bytes:
    given = entry.get("bytes")
    return str(entry["token"]).encode() if given is None else bytes(given)


def _spelling(tokenizer: PreTrainedTokenizerBase) -> Any:
    """From a token, as the vocabulary writes it, to its bytes."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    decoder = str(json.loads(backend.to_str())["decoder"]) if backend is not None else ""
    if "ByteLevel" in decoder:
        letters = {letter: number for number, letter in bytes_to_unicode().items()}
        return lambda token: (
            bytes(letters[letter] for letter in token) if set(token) <= set(letters) else token.encode()
        )
    if _SPACE in decoder:
        return lambda token: bytes([int(found[1], 16)]) if (found := _BYTE.fullmatch(token)) else _spaced(token)
    problem = "does not say which bytes its tokens stand for."
    raise UserError("student.tokenizer", tokenizer.name_or_path, problem, f"Set {KEY}=null, or take a byte-level one.")


def _spaced(token: str) -> bytes:
    return token.replace(_SPACE, " ").encode()
