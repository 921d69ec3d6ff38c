"""The two questions a step asks of the other ranks."""

from __future__ import annotations

import torch
from torch import distributed


def world_size() -> int:
    return distributed.get_world_size() if _is_running() else 1


def sum_over_ranks(counts: dict[str, int], device: torch.device) -> dict[str, int]:
    """Every count summed over all ranks, in one call."""
    if not _is_running():
        return counts
    totals = torch.tensor(list(counts.values()), device=device)
    distributed.all_reduce(totals)
    return dict(zip(counts, totals.tolist(), strict=True))


def _is_running() -> bool:
    return distributed.is_available() and distributed.is_initialized()
