"""Attended positions as examples again, for losses that compare the positions of an example with each other."""

# P attended positions of the batch, in order; B batch, L length, D width

from __future__ import annotations

import torch
from torch import Tensor


def padded(hidden: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attended positions `[P, D]` as examples `[B, L, D]`, and which of their positions exist, bool `[B, L]`.

    lengths_B: attended positions of each example; the longest gives L, and zeros fill the rest. None: the tokens of
    images `[B, L, D]`, which are all there.
    """
    if lengths_B is None:
        return hidden, torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    longest = int(lengths_B.max()) if len(lengths_B) else 1
    mask_BL = torch.arange(longest, device=hidden.device) < lengths_B.unsqueeze(1)
    empty_BLD = hidden.new_zeros(*mask_BL.shape, hidden.shape[-1])
    return empty_BLD.masked_scatter(mask_BL.unsqueeze(-1), hidden), mask_BL


def a_row_each(values_P: Tensor, mask_BL: Tensor, lengths_B: Tensor | None) -> Tensor:
    """One value a row of kind `positions`, of one an attended position: of an image, their mean."""
    return values_P if lengths_B is not None else values_P.view(mask_BL.shape).mean(dim=1)
