"""The questions a step asks of the other ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    return distributed.get_world_size() if _is_running() else 1


def rank() -> int:
    return distributed.get_rank() if _is_running() else 0


def sum_over_ranks(counts: dict[str, int]) -> dict[str, int]:
    """Every count summed over all ranks, in one call. Between the hosts: nobody waits for an accelerator."""
    totals = _reduced(list(counts.values()), distributed.ReduceOp.SUM)
    return dict(zip(counts, totals, strict=True))


def max_over_ranks(count: int) -> int:
    """The largest count of any rank."""
    return _reduced([count], distributed.ReduceOp.MAX)[0]


def add_over_ranks(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every scalar summed over all ranks, in one call, where the values are."""
    if not _is_running():
        return values
    totals = torch.stack([value.float() for value in values.values()])
    distributed.all_reduce(totals)
    return dict(zip(values, totals.unbind(), strict=True))


def max_in_place(tensor: Tensor) -> None:
    """It becomes the largest of its like on all ranks, where it is, and nobody waits."""
    if _is_running():
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)


def add_in_place(tensors: Iterable[Tensor]) -> None:
    """Every tensor becomes the sum of its like on all ranks."""
    if _is_running():
        for tensor in tensors:
            distributed.all_reduce(tensor)


def first_of_ranks(text: str | None) -> str | None:
    """The text of the lowest rank that has one; None where none has."""
    return next((text for text in of_every_rank(text) if text is not None), None)


def of_every_rank(value: Any) -> list[Any]:
    """The values of all ranks, in their order, on each of them."""
    values = [value] * world_size()
    if _is_running():
        distributed.all_gather_object(values, value)
    return values


def _reduced(counts: list[int], operation: distributed.ReduceOp.RedOpType) -> list[int]:
    if not _is_running():
        return counts
    reduced = torch.tensor(counts)
    distributed.all_reduce(reduced, operation)
    return reduced.tolist()


def _is_running() -> bool:
    return distributed.is_available() and distributed.is_initialized()
