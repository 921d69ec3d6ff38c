"""Ragged lists of token ids as one tensor."""

# B examples, L positions

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from potstill.errors import UserError

NO_LIMIT = 1_000_000  # tokenizers that know no limit report one far above this


@dataclass(frozen=True)
class Padding:
    """Which token fills a batch up, and on which side.

    The token may be a real one (a tokenizer without a padding token pads with its end-of-sequence token): only the
    attention mask tells padding from content, never the id.
    """

    token_id: int
    side: str

    def pad(self, rows: Sequence[Sequence[int]], value: int) -> Tensor:
        """`[B, L]` int64, L the longest row and at least 1."""
        width = max((len(row) for row in rows), default=0) or 1
        padded_BL = np.full((len(rows), width), value, dtype=np.int64)
        for index, row in enumerate(rows):
            start = width - len(row) if self.side == "left" else 0
            padded_BL[index, start : start + len(row)] = row
        return torch.from_numpy(padded_BL)

    def inputs(self, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, `[B, L]` each."""
        return {
            "input_ids": self.pad(ids, self.token_id),
            "attention_mask": self.pad([[1] * len(row) for row in ids], 0),
        }


def padding_of(tokenizer: PreTrainedTokenizerBase) -> Padding:
    """Raises UserError where the tokenizer has neither a padding nor an end-of-sequence token."""
    token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if token_id is None:
        problem = "has neither a padding nor an end-of-sequence token, so examples of different length fit no batch."
        raise UserError("student.tokenizer", tokenizer.name_or_path, problem, "Save it with a pad_token.")
    assert isinstance(token_id, int)
    return Padding(token_id, tokenizer.padding_side)


def check_max_length(tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Raises UserError where the model's own limit, as its tokenizer states it, is smaller."""
    limit = tokenizer.model_max_length
    if max_length > limit and limit < NO_LIMIT:
        problem = f"is more than the {limit} positions that the tokenizer says its model has."
        raise UserError("data.max_length", max_length, problem, f"Give at most data.max_length={limit}")
