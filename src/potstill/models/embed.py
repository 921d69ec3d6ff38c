"""Embeddings of texts by an encoder that is neither teacher nor student."""

# N texts, D width

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from potstill.errors import UserError
from potstill.losses.hidden import pool
from potstill.models.hub import reading
from potstill.models.tokenizers import load_tokenizer

CHUNK = 64  # texts at once
MAX_LENGTH = 256  # tokens; longer texts are cut


def embed(
    path: str, texts: Sequence[str], *, key: str, progress: Callable[[Sequence[Any], str], Iterable[Any]]
) -> NDArray[np.float32]:
    """The mean of each text's last hidden states, `[N, D]`. path: directory or hub name; `key` holds it."""
    tokenizer = load_tokenizer(path, key=key)
    if tokenizer.pad_token is None:
        raise UserError(key, path, "has a tokenizer without a padding token.", "Choose an encoder, such as a BERT.")
    with reading(path, key) as name:
        model = AutoModel.from_pretrained(name).eval()
    ids = tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH)["input_ids"]
    by_length = np.argsort([len(each) for each in ids], kind="stable")  # beside its like, a text needs little padding
    rows = []
    with torch.inference_mode():
        for start in progress(range(0, len(texts), CHUNK), f"embeddings by {path}"):
            chunk = [ids[place] for place in by_length[start : start + CHUNK]]
            tokens = tokenizer.pad({"input_ids": chunk}, return_tensors="pt")
            hidden_NLD = model(**tokens).last_hidden_state
            rows.append(pool(hidden_NLD.float(), tokens["attention_mask"], "mean").numpy())
    return np.concatenate(rows)[np.argsort(by_length)]
