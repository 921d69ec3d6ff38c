"""Cut one batch into pieces that fit into memory. Which piece an example falls into moves no gradient."""

# B examples, K texts of an example, L positions

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from potstill.data.batch import Batch
from potstill.data.slots import slot_lengths


def cut(batch: Batch, max_examples: int | None, max_tokens: int | None, *, packs: bool = False) -> list[Batch]:
    """Pieces whose union is the batch, every example exactly once.

    max_examples: of one piece.
    max_tokens: of one piece, padding counted. Examples are sorted, longest first, so that those of like length share
        a piece; one example longer than the limit is a piece of its own. Without effect on images.
    packs: a piece has as many positions as `slots.slot_lengths` gives its texts, not as many as the longest for each.
    Pieces of text lose the outer columns in which every example is padded. Both limits None: `[batch]`, untouched.
    """
    mask = batch.on_host.inputs.get("attention_mask")  # [B, L], or [B, K, L]
    if not len(batch) or not (max_examples or (max_tokens and mask is not None)):
        return [batch]
    max_examples = max_examples or len(batch)
    if max_tokens and mask is not None:
        lengths_BK = mask.sum(dim=-1).view(len(batch), -1).numpy()
        pieces = (_filled if packs else _longest_together)(lengths_BK, max_examples, max_tokens)
    else:
        pieces = torch.arange(len(batch)).split(max_examples)
    taken = [batch.take(piece.tolist()) for piece in pieces]
    return taken if mask is None else [_trim(piece) for piece in taken]


def _longest_together(lengths_BK: np.ndarray, max_examples: int, max_tokens: int) -> list[Tensor]:
    tokens_B = lengths_BK.max(axis=1) * lengths_BK.shape[1]
    order_B = np.argsort(-tokens_B, kind="stable")
    pieces, start = [], 0
    while start < len(order_B):
        size = min(max_examples, max(1, max_tokens // max(1, int(tokens_B[order_B[start]]))))
        pieces.append(torch.from_numpy(order_B[start : start + size]))
        start += size
    return pieces


def _filled(lengths_BK: np.ndarray, max_examples: int, max_tokens: int) -> list[Tensor]:
    """As many in a piece as its slots allow. Texts get the slots of longer ones before them: shorter ones move none."""
    order_B = np.argsort(-lengths_BK.max(axis=1), kind="stable")
    pieces, start = [], 0
    while start < len(order_B):
        rest = lengths_BK[order_B[start:]]
        total_B = slot_lengths(rest.flatten()).reshape(rest.shape).sum(axis=1).cumsum()
        size = min(max_examples, max(1, int(np.searchsorted(total_B, max_tokens, side="right"))))
        pieces.append(torch.from_numpy(order_B[start : start + size]))
        start += size
    return pieces


def _trim(batch: Batch) -> Batch:
    """Without the columns left and right of every attended position; at least one column stays."""
    attended = batch.on_host.inputs["attention_mask"].flatten(0, -2).any(dim=0).nonzero().flatten()
    first, last = (int(attended[0]), int(attended[-1])) if len(attended) else (0, 0)
    return _columns(batch, first, last + 1 - first)


def _columns(batch: Batch, first: int, number: int) -> Batch:
    mask = batch.inputs["attention_mask"]

    def trimmed(value: Tensor) -> Tensor:
        is_padded = value.shape[: mask.ndim] == mask.shape
        return value.narrow(mask.ndim - 1, first, number) if is_padded else value

    inputs = {name: trimmed(value) for name, value in batch.inputs.items()}
    host = None if batch.host is None else _columns(batch.host, first, number)
    return replace(batch, inputs=inputs, labels=trimmed(batch.labels), host=host)
