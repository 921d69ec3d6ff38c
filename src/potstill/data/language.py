"""Examples of a causal language model: ids, and labels where a token is scored."""

# B examples, L positions

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from potstill.data.batch import IGNORE, Batch
from potstill.data.content import content_hash
from potstill.data.encoders import Rows
from potstill.data.padding import check_max_length, padding_of
from potstill.data.sequences import conversations, plain, prompted
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.errors import UserError

logger = logging.getLogger(__name__)

FORMS = {("text",): plain, ("prompt", "completion"): prompted, ("messages",): conversations}


class LanguageEncoder:
    """Plain text, prompt with completion, or conversations (see `sequences`), whichever columns the table has.

    Sequences longer than max_length tokens lose their end. An example of which nothing is scored (then, or from the
    start) is left out, with a warning that counts them.
    """

    columns: tuple[str, ...] = ("input_ids", "labels")

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        check_max_length(tokenizer, max_length)
        if not tokenizer.is_fast:
            problem = "is a slow tokenizer: it cannot say which bytes of the text a token stands for."
            raise UserError("student.tokenizer", tokenizer.name_or_path, problem, "Choose one with a tokenizer.json.")
        self.tokenizer, self.max_length = tokenizer, max_length
        self.padding = padding_of(tokenizer)
        self.fingerprint = content_hash("language", tokenizer_fingerprint(tokenizer), max_length)

    def encode(self, table: Dataset) -> Dataset:
        name = content_hash(table._fingerprint, self.fingerprint)  # hashing a tokenizer by pickle is not repeatable
        encoded = table.map(self._tokenise, batched=True, new_fingerprint=name, load_from_cache_file=False)
        kept = np.flatnonzero(np.asarray(encoded["num_rows"][:]))
        if len(kept) < len(table):
            text = "%d of %d examples have nothing scored within data.max_length=%d tokens and are left out."
            logger.warning(text, len(table) - len(kept), len(table), self.max_length)
        return encoded.select(kept)

    def collate(self, rows: Rows) -> Batch:
        """keys: of ids and of what is scored, because both decide which rows a signal has."""
        ids, labels = [row["input_ids"] for row in rows], [row["labels"] for row in rows]
        keys = tuple(content_hash(np.asarray(pair, dtype=np.int64)) for pair in zip(ids, labels, strict=True))
        return Batch(self.padding.inputs(ids), self.padding.pad(labels, IGNORE), keys)

    def _tokenise(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        names, form = next((names, form) for names, form in FORMS.items() if names[0] in rows)
        sequences = [tokens.cut(self.max_length) for tokens in form(self.tokenizer, *(rows[name] for name in names))]
        return {
            "input_ids": [tokens.ids for tokens in sequences],
            "labels": [tokens.labels for tokens in sequences],
            "length": [len(tokens.ids) for tokens in sequences],
            "num_rows": [tokens.num_rows for tokens in sequences],
            "scored_bytes": [tokens.scored_bytes for tokens in sequences],
        }
