"""Models whose answers are known: one that returns its input as logits, and a tiny language model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from potstill.data.batch import IGNORE, Batch
from potstill.evaluation.scores import Scores
from potstill.models.task import TASKS

IMAGES, CAUSAL = TASKS["image_classification"], TASKS["causal_lm"]
NUM_CLASSES = 3


class Echo(nn.Module):
    """The logits are the pixels, their columns rotated by `rotation`: class c is answered as class c + rotation."""

    def __init__(self, rotation: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.rotation = rotation
        self.scale = nn.Parameter(torch.ones(1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.dropout(pixel_values.roll(self.rotation, dims=1) * self.scale))


def answers(classes: list[int], labels: list[int]) -> Batch:
    """A batch that `Echo()` answers with `classes`."""
    pixels = 5 * torch.eye(NUM_CLASSES)[classes]
    return Batch({"pixel_values": pixels}, torch.tensor(labels), tuple(map(str, range(len(labels)))))


def language_model(seed: int = 0) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16)).eval()


def texts(*token_ids: list[int], prompt: int = 0) -> Batch:
    """Right-padded texts, the first `prompt` tokens of each unscored."""
    longest = max(map(len, token_ids))
    gaps = [longest - len(ids) for ids in token_ids]
    rows = list(zip(token_ids, gaps, strict=True))
    inputs = {
        "input_ids": torch.tensor([ids + [0] * gap for ids, gap in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * gap for ids, gap in rows]),
    }
    labels = torch.tensor([[IGNORE] * prompt + ids[prompt:] + [IGNORE] * gap for ids, gap in rows])
    return Batch(inputs, labels, tuple(map(str, token_ids)))


def scores(top1: NDArray, label: NDArray, nll: NDArray | None = None, example: NDArray | None = None) -> Scores:
    """By default every row is an example of its own."""
    example = np.arange(len(label)) if example is None else example
    nll = np.zeros(len(label)) if nll is None else nll
    known, none = np.full(len(label), 0.5), np.full(len(label), np.nan)
    num_examples = int(example.max(initial=-1)) + 1
    return Scores(top1, nll, label, example, known, known, none, none, num_examples)
