"""From examples to batches: what a task's model is fed, and the hash each example is known by."""

# B examples, L positions, C channels, H height, W width

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from potstill.data.batch import Batch
from potstill.data.content import content_hash
from potstill.data.padding import check_max_length, padding_of
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.errors import UserError

Rows = Sequence[dict[str, Any]]


class Encoder(Protocol):
    """A task's way from a table of examples to a batch.

    columns: those `collate` reads. fingerprint: of all that decides what the model is fed, the examples apart.
    """

    columns: tuple[str, ...]
    fingerprint: str

    def encode(self, table: Dataset) -> Dataset:
        """The table with what can be computed once, before training: token ids, and `length` in tokens."""
        ...

    def collate(self, rows: Rows) -> Batch: ...


class TextEncoder:
    """Text, or pairs of text, for classification."""

    columns: tuple[str, ...] = ("input_ids", "label")

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        """max_length: in tokens, special tokens included; longer texts are cut (of a pair the longer text first)."""
        check_max_length(tokenizer, max_length)
        self.tokenizer, self.max_length = tokenizer, max_length
        self.padding = padding_of(tokenizer)
        if "token_type_ids" in tokenizer.model_input_names:
            self.columns += ("token_type_ids",)
        self.fingerprint = content_hash("text", tokenizer_fingerprint(tokenizer), max_length)

    def encode(self, table: Dataset) -> Dataset:
        name = content_hash(table._fingerprint, self.fingerprint)  # hashing a tokenizer by pickle is not repeatable
        return table.map(self._tokenise, batched=True, new_fingerprint=name, load_from_cache_file=False)

    def collate(self, rows: Rows) -> Batch:
        """keys: of all ids, the types among them: a text may hold the separator that stands between two."""
        ids = [row["input_ids"] for row in rows]
        read = [name for name in ("input_ids", "token_type_ids") if name in self.columns]
        keys = tuple(content_hash(*(np.asarray(row[name], dtype=np.int64) for name in read)) for row in rows)
        inputs = self.padding.inputs(ids)
        if "token_type_ids" in self.columns:
            inputs["token_type_ids"] = self.padding.pad([row["token_type_ids"] for row in rows], 0)
        return Batch(inputs, _labels(rows), keys)

    def _tokenise(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pair = rows.get("text_pair")
        tokens = self.tokenizer(rows["text"], pair, truncation=True, max_length=self.max_length, padding=False)
        encoded = {name: tokens[name] for name in self.columns if name in tokens}
        return encoded | {"length": [len(ids) for ids in tokens["input_ids"]]}


class ImageEncoder:
    """Images as values in [0, 1] (nested lists, arrays) or as PIL images, fed as (x - 0.5) / 0.5."""

    columns: tuple[str, ...] = ("image", "label")
    fingerprint = content_hash("image", 0.5, 0.5)

    def encode(self, table: Dataset) -> Dataset:
        return table  # pixels of a whole data set would not fit into memory

    def collate(self, rows: Rows) -> Batch:
        images = [(pixels(row["image"]) - 0.5) / 0.5 for row in rows]
        shapes = sorted({tuple(image.shape) for image in images})
        if len(shapes) > 1:
            problem = f"has images of different shapes, {shapes[0]} and {shapes[-1]}; a batch needs one."
            raise UserError("data.columns.image", "image", problem, "Resize the images of the source to one size.")
        keys = tuple(content_hash(image.numpy()) for image in images)
        return Batch({"pixel_values": torch.stack(images)}, _labels(rows), keys)


def pixels(image: Any) -> Tensor:
    """`[C, H, W]` in [0, 1], float32, of a PIL image, an array or nested lists `[H, W]` or `[C, H, W]`."""
    if hasattr(image, "convert"):  # PIL: 8 bits a channel, channels last
        image = np.asarray(image if image.mode == "L" else image.convert("RGB"), dtype=np.float32) / 255
        image = image if image.ndim == 2 else image.transpose(2, 0, 1)
    image_CHW = torch.tensor(np.asarray(image, dtype=np.float32))
    return image_CHW if image_CHW.ndim == 3 else image_CHW.unsqueeze(0)


def _labels(rows: Rows) -> Tensor:
    return torch.tensor([row["label"] for row in rows], dtype=torch.int64)
