"""Cut one batch into pieces that fit into memory. Which piece an example falls into moves no gradient."""

# B examples, L positions

from __future__ import annotations

import torch
from torch import Tensor

from potstill.data.batch import Batch


def cut(batch: Batch, max_examples: int | None, max_tokens: int | None) -> list[Batch]:
    """Pieces whose union is the batch, every example exactly once.

    max_examples: of one piece.
    max_tokens: of one piece, padding counted. Examples are sorted, longest first, so that those of like length share
        a piece; one example longer than the limit is a piece of its own. Without effect on images.
    Pieces of text lose the outer columns in which every example is padded. Both limits None: `[batch]`, untouched.
    """
    mask_BL = batch.inputs.get("attention_mask")
    if not len(batch) or not (max_examples or (max_tokens and mask_BL is not None)):
        return [batch]
    max_examples = max_examples or len(batch)
    if max_tokens and mask_BL is not None:
        pieces = _longest_together(mask_BL.sum(dim=1).cpu(), max_examples, max_tokens)
    else:
        pieces = torch.arange(len(batch)).split(max_examples)
    return [_take(batch, rows) for rows in pieces]


def _longest_together(lengths_B: Tensor, max_examples: int, max_tokens: int) -> list[Tensor]:
    order_B = torch.argsort(lengths_B, descending=True, stable=True)
    pieces, start = [], 0
    while start < len(order_B):
        longest = max(1, int(lengths_B[order_B[start]]))
        size = min(max_examples, max(1, max_tokens // longest))
        pieces.append(order_B[start : start + size])
        start += size
    return pieces


def _take(batch: Batch, rows: Tensor) -> Batch:
    inputs = {name: value[rows] for name, value in batch.inputs.items()}
    piece = Batch(inputs, batch.labels[rows], tuple(batch.keys[row] for row in rows.tolist()))
    return _trim(piece) if "attention_mask" in inputs else piece


def _trim(batch: Batch) -> Batch:
    """Without the columns left and right of every attended position; at least one column stays."""
    mask_BL = batch.inputs["attention_mask"]
    attended = mask_BL.any(dim=0).nonzero().flatten()
    first, last = (int(attended[0]), int(attended[-1])) if len(attended) else (0, 0)

    def trimmed(value: Tensor) -> Tensor:
        return value[:, first : last + 1] if value.shape[:2] == mask_BL.shape else value

    return Batch({name: trimmed(value) for name, value in batch.inputs.items()}, trimmed(batch.labels), batch.keys)
