"""A tiny teacher of three classes, and batches of text for it."""

from __future__ import annotations

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from potstill.data.batch import IGNORE, Batch

TAP = "bert.encoder.layer.1"


def classifier() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        id2label=dict(enumerate("abc")),
    )
    return BertForSequenceClassification(config)


def language_model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    return GPT2LMHeadModel(config)


def unlabelled(*texts: list[int]) -> Batch:
    return _batch(texts, torch.full((len(texts),), IGNORE))


def scored(*texts: list[int]) -> Batch:
    """Every token but the first is scored."""
    return _batch(texts, _padded([torch.tensor([IGNORE, *text[1:]]) for text in texts], IGNORE))


def _batch(texts: tuple[list[int], ...], labels: torch.Tensor) -> Batch:
    ids = _padded([torch.tensor(text) for text in texts], 0)
    mask = _padded([torch.ones(len(text), dtype=torch.long) for text in texts], 0)
    return Batch({"input_ids": ids, "attention_mask": mask}, labels, tuple(map(str, texts)))


def _padded(rows: list[torch.Tensor], value: int) -> torch.Tensor:
    return pad_sequence(rows, batch_first=True, padding_value=value)
