"""What a causal language model writes to a prompt: its most probable token, one after the other, nothing drawn."""

# B batch, L positions

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerBase

from potstill.evaluation.answers import Written
from potstill.evaluation.predict import ModelUnderTest, inference


@dataclass(frozen=True)
class Decoding:
    """How answers are written, the same for every model. batch_size: prompts at a time. ends: tokens that end an
    answer, besides those that the tokenizer and the model name."""

    tokenizer: PreTrainedTokenizerBase
    max_new_tokens: int
    batch_size: int
    ends: tuple[int, ...] = ()


def can_write(tested: ModelUnderTest) -> bool:
    """It is one model, and it has a way to generate."""
    return tested.source is None and hasattr(tested.model, "generate")


def num_positions(tested: ModelUnderTest) -> int | None:
    """Tokens that the model can read and write together; None where its architecture sets no limit."""
    return getattr(tested.model.config.get_text_config(), "max_position_embeddings", None)  # type: ignore[union-attr]


def write(tested: ModelUnderTest, prompts: Sequence[Sequence[int]], decoding: Decoding) -> Written:
    """An answer to each prompt (token ids), in their order. Prompts of a batch are padded on the left and masked."""
    model: Any = tested.model
    longest_first = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    found: dict[int, tuple[str, bool]] = {}
    with inference(model), _greedy(model, decoding) as ends:
        for start in range(0, len(prompts), decoding.batch_size):
            places = longest_first[start : start + decoding.batch_size]
            inputs = _left_padded([prompts[place] for place in places], model.device)
            written = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
            read = (_read(ids, ends, decoding) for ids in written.tolist())
            found |= dict(zip(places, read, strict=True))
    texts, truncated = zip(*(found[place] for place in range(len(prompts))), strict=True)
    return Written(texts, truncated)


@contextmanager
def _greedy(model: Any, decoding: Decoding) -> Iterator[frozenset[int]]:
    """The model's own way of generating set aside: a temperature or a penalty would be an advantage of one model.

    Yields the ids that end an answer: the tokenizer's, those that the model was made with, and `decoding.ends`.
    """
    own = model.generation_config
    known = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    end, pad = decoding.tokenizer.eos_token_id, decoding.tokenizer.pad_token_id
    ends: list[int] = sorted({each for each in (*known, *decoding.ends, end) if isinstance(each, int)})
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=ends or None,
        pad_token_id=pad if pad is not None else (ends or [0])[0],  # masked: which one has no effect
    )
    try:
        yield frozenset(ends)
    finally:
        model.generation_config = own


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> Mapping[str, Tensor]:
    longest = max(map(len, prompts))
    ids_BL = [[0] * (longest - len(ids)) + list(ids) for ids in prompts]
    mask_BL = [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
    return {
        "input_ids": torch.tensor(ids_BL, device=device),
        "attention_mask": torch.tensor(mask_BL, device=device),
    }


def _read(ids: list[int], ends: frozenset[int], decoding: Decoding) -> tuple[str, bool]:
    """The text before the first end, and whether there is none."""
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    text = decoding.tokenizer.decode(ids[:end], skip_special_tokens=True)
    return str(text), end is None
