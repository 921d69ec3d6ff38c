"""From the hidden states of a text to its embedding.

How, stands in the model's own config, which goes where its weights go. What `write_modules` writes of it is the layout
of sentence-transformers.
"""

# N texts, L length, D width

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn
from transformers import PreTrainedConfig

from potstill.losses.geometry import unit
from potstill.losses.hidden import pool
from potstill.losses.precision import upcast

POOLINGS = {"cls": "first", "mean": "mean", "last": "last"}  # as a user calls them, and as `hidden.pool` does
_THEIR_NAMES = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken"}


class PoolingOptions(Protocol):
    """Fields of `potstill.config.schema.ModelConfig`."""

    pooling: str
    normalise: bool


def set_pooling(config: PreTrainedConfig, options: PoolingOptions) -> None:
    config.sentence_pooling = options.pooling
    config.sentence_normalise = options.normalise


def pooled(model: nn.Module, hidden_NLD: Tensor, mask_NL: Tensor) -> Tensor:
    """Embeddings `[N, D]`, in float32 or better, of right-padded texts."""
    config: Any = model.config
    embeddings_ND = pool(upcast(hidden_NLD), mask_NL, POOLINGS[config.sentence_pooling])
    return unit(embeddings_ND) if config.sentence_normalise else embeddings_ND


def write_modules(config: PreTrainedConfig, max_length: int, directory: Path) -> None:
    """Beside a saved model and its tokenizer: what makes the directory one that `SentenceTransformer(...)` loads.

    max_length: in tokens, special tokens included; longer texts are cut, as they were in training.
    """
    pooling: Any = config.sentence_pooling
    modes = {f"pooling_mode_{name}": which == pooling for which, name in _THEIR_NAMES.items()}
    types = ["Transformer", "Pooling", *(["Normalize"] if config.sentence_normalise else [])]
    modules = [
        {"idx": number, "name": str(number), "path": f"{number}_{name}" if number else "", "type": f"{_PACKAGE}.{name}"}
        for number, name in enumerate(types)
    ]
    for module in modules[1:]:
        (directory / module["path"]).mkdir()
    _write(directory / "modules.json", modules)
    _write(directory / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    _write(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": config.hidden_size, **modes})


_PACKAGE = "sentence_transformers.models"  # under this name in every version of it


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
