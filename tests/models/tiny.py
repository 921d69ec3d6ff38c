"""Tiny models of real architectures, and batches to run them on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from potstill.data.batch import IGNORE, Batch
from potstill.models.pooling import set_pooling
from potstill.models.task import TASKS

VOCABULARY_SIZE = 50
SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT: dict[str, Any] = {**SMALL, "vocab_size": VOCABULARY_SIZE, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {**TEXT, "intermediate_size": 32},
    "roberta": {**TEXT, "intermediate_size": 32},
    "electra": {**TEXT, "intermediate_size": 32, "embedding_size": 8},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "vocab_size": VOCABULARY_SIZE},
    "deberta-v2": {**TEXT, "intermediate_size": 32, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "vit": {**SMALL, "intermediate_size": 32, "image_size": 8, "patch_size": 4, "num_channels": 1},
    "resnet": {"num_channels": 1, "embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"},
    "gpt2": TEXT,
    "llama": {**TEXT, "intermediate_size": 32, "num_key_value_heads": 2},
    "mistral": {**TEXT, "intermediate_size": 32},
    "qwen2": {**TEXT, "intermediate_size": 32},
    "gemma2": {**TEXT, "intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 8},
}


def tiny_model(model_type: str, task: str, *, seed: int = 0, **config: Any) -> PreTrainedModel:
    """A model with random weights, in eval mode."""
    torch.manual_seed(seed)
    auto_class = getattr(transformers, TASKS[task].auto_class)
    model = auto_class.from_config(AutoConfig.for_model(model_type, **{**CONFIGS[model_type], **config})).eval()
    if TASKS[task].is_embedding:
        set_pooling(model.config, SimpleNamespace(pooling="mean", normalise=False))  # type: ignore[arg-type]
    return model


def text_batch(texts: list[list[int]], labels: list[int], *, left: int = 0, right: int = 0) -> Batch:
    """Classification of token ids, padded with 0 to the longest text and by so many positions more on either side."""
    ids, mask = _pad(texts, 0, left, right), _pad([[1] * len(text) for text in texts], 0, left, right)
    return Batch({"input_ids": ids, "attention_mask": mask}, torch.tensor(labels), _keys(texts))


def embedding_batch(texts: list[list[int]], labels: list[int], *, left: int = 0, right: int = 0) -> Batch:
    """An anchor, a positive and a negative an example: each text, the next and the one after it."""
    flat = [texts[(row + shift) % len(texts)] for row in range(len(texts)) for shift in range(3)]
    batch = text_batch(flat, labels, left=left, right=right)
    inputs = {name: value.unflatten(0, (len(texts), 3)) for name, value in batch.inputs.items()}
    return Batch(inputs, batch.labels, _keys(texts))


def causal_batch(texts: list[list[int]], prompts: list[int], *, left: int = 0, right: int = 0) -> Batch:
    """Language modelling of token ids; the first so many tokens of each text are an unscored prompt."""
    batch = text_batch(texts, [0] * len(texts), left=left, right=right)
    labels = [[IGNORE] * prompt + text[prompt:] for text, prompt in zip(texts, prompts, strict=True)]
    return Batch(batch.inputs, _pad(labels, IGNORE, left, right), batch.keys)


def image_batch(num_examples: int, *, seed: int = 0) -> Batch:
    pixels = torch.rand(num_examples, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Batch({"pixel_values": pixels}, torch.arange(num_examples) % 2, _keys(pixels.tolist()))


def _pad(rows: list[list[int]], value: int, left: int, right: int) -> torch.Tensor:
    """Left padding where `left` is given, else right padding."""
    longest = max(map(len, rows))

    def padded(row: list[int]) -> list[int]:
        gap = [value] * (longest - len(row))
        return [value] * left + (gap + row if left else row + gap) + [value] * right

    return torch.tensor([padded(row) for row in rows])


def _keys(contents: list[Any]) -> tuple[str, ...]:
    return tuple(str(content) for content in contents)
