"""Texts for a sentence encoder: K of them an example, each read on its own."""

# B examples, K texts of an example, L positions

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from potstill.data.batch import Batch
from potstill.data.content import content_hash
from potstill.data.encoders import Rows, TextEncoder
from potstill.errors import UserError


class EmbeddingEncoder(TextEncoder):
    """Single texts (K = 1), or an anchor with its positive and negatives, in this order."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        super().__init__(tokenizer, max_length)
        self.fingerprint = content_hash("embedding", self.fingerprint)

    def encode(self, table: Dataset) -> Dataset:
        encoded = super().encode(table)
        numbers = sorted({len(texts) for texts in encoded["input_ids"][:]})
        if len(numbers) > 1:
            problem = f"holds {numbers[0] - 2} negatives in one example, {numbers[-1] - 2} in another."
            raise UserError("data.columns.negative", "negative", problem, "Give every example equally many.")
        return encoded

    def collate(self, rows: Rows) -> Batch:
        ids = [text for row in rows for text in row["input_ids"]]
        inputs = self.padding.inputs(ids)
        if "token_type_ids" in self.columns:
            inputs["token_type_ids"] = self.padding.pad([text for row in rows for text in row["token_type_ids"]], 0)
        inputs = {name: value.unflatten(0, (len(rows), -1)) for name, value in inputs.items()}
        keys = tuple(content_hash(*(np.asarray(text, np.int64) for text in row["input_ids"])) for row in rows)
        return Batch(inputs, torch.tensor([row["label"] for row in rows]), keys)

    def _tokenise(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        columns = [rows[name] for name in ("text", "anchor", "positive", "negative") if name in rows]
        examples = [[text for value in values for text in _listed(value)] for values in zip(*columns, strict=True)]
        texts = [text for example in examples for text in example]
        tokens: Any = self.tokenizer(texts, truncation=True, max_length=self.max_length, padding=False)
        for text, ids in zip(texts, tokens["input_ids"], strict=True):
            if not ids:
                problem = f"gives {text!r} no token, and so nothing to make a vector of."
                raise UserError("data.columns", text, problem, "Leave such examples out of the source.")
        encoded = {name: _regrouped(tokens[name], examples) for name in self.columns if name in tokens}
        return encoded | {"length": [max(map(len, example)) for example in encoded["input_ids"]]}


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _regrouped(flat: list[Any], examples: list[list[str]]) -> list[list[Any]]:
    rest = iter(flat)
    return [[next(rest) for _ in example] for example in examples]
