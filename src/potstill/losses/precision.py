"""Losses are computed in float32 or better, whatever the models' dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def loss_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; every other floating dtype becomes float32.

    A bfloat16 softmax has 8 bits of mantissa: its rounding exceeds the divergence of two models that are close, and
    makes Jensen-Shannon negative.
    """
    return torch.promote_types(dtype, torch.float32)


def upcast(tensor: Tensor) -> Tensor:
    """`tensor` in `loss_dtype`; the same tensor where it already is."""
    return tensor.to(loss_dtype(tensor.dtype))
