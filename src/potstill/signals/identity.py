"""All that decides what a teacher says of given token ids, and what of it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from potstill.data.content import content_hash
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.signals.cache import FORMAT, Identity
from potstill.signals.codecs import Codec
from potstill.signals.live import LiveTeacher

# Of a model's config: where it came from, and what says nothing of what it computes
_NOT_IN_THE_ANSWER = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "_commit_hash")


def identity_of(
    live: LiveTeacher,
    tokenizer: PreTrainedTokenizerBase | None,
    label_names: Sequence[str] | None,
    codecs: Mapping[str, Codec],
) -> Identity:
    """By field, hashes and options. Two that are equal have the same answers to the same ids.

    The weights are those that were loaded, whatever they are called and wherever they lie.
    """
    template = getattr(tokenizer, "chat_template", None)
    return {
        "format": FORMAT,
        "task": live.task.name,
        "architecture": architecture_hash(live.model),
        "weights": weights_hash(live.model),
        "labels": content_hash(label_names, live.label_order),
        "chat_template": content_hash(template),
        "tokenizer": tokenizer_fingerprint(tokenizer) if tokenizer is not None else None,
        "stored": {part: codec.describe() for part, codec in codecs.items()},
    }


def architecture_hash(model: PreTrainedModel) -> str:
    """Of the config, and of the implementation of attention, which moves the last bits."""
    config: dict[str, Any] = model.config.to_dict()
    answer = {name: value for name, value in config.items() if name not in _NOT_IN_THE_ANSWER}
    return content_hash(type(model).__name__, repr(sorted(answer.items())), model.config._attn_implementation)


def weights_hash(model: PreTrainedModel) -> str:
    """Of every parameter and buffer by name, in the dtype the model has."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
