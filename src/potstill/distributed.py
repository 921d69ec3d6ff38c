"""The questions a step asks of the other ranks."""

from __future__ import annotations

import torch
from torch import distributed


def world_size() -> int:
    return distributed.get_world_size() if _is_running() else 1


def sum_over_ranks(counts: dict[str, int], device: torch.device) -> dict[str, int]:
    """Every count summed over all ranks, in one call."""
    totals = _reduced(list(counts.values()), distributed.ReduceOp.SUM, device)
    return dict(zip(counts, totals, strict=True))


def max_over_ranks(count: int, device: torch.device) -> int:
    """The largest count of any rank."""
    return _reduced([count], distributed.ReduceOp.MAX, device)[0]


def _reduced(counts: list[int], operation: distributed.ReduceOp.RedOpType, device: torch.device) -> list[int]:
    if not _is_running():
        return counts
    reduced = torch.tensor(counts, device=device)
    distributed.all_reduce(reduced, operation)
    return reduced.tolist()


def _is_running() -> bool:
    return distributed.is_available() and distributed.is_initialized()
