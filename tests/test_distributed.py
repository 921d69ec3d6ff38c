"""One process alone. Two of them: tests/integration/test_ranks.py."""

from __future__ import annotations

import torch

from potstill.distributed import add_over_ranks, first_of_ranks, max_over_ranks, rank, sum_over_ranks, world_size


def test_one_process_alone_answers_for_itself() -> None:
    assert (world_size(), rank()) == (1, 0)
    assert sum_over_ranks({"labelled": 3, "scored": 0}) == {"labelled": 3, "scored": 0}
    assert max_over_ranks(7) == 7
    assert first_of_ranks("here") == "here"
    assert first_of_ranks(None) is None
    value = torch.tensor(2.5, dtype=torch.float64)
    assert add_over_ranks({"loss": value})["loss"] is value
