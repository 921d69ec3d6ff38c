from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from potstill.randomness import seed_step


def drawn(seed: int, step: int, rank: int) -> tuple[float, float, float]:
    seed_step(seed, step, rank)
    return random.random(), float(np.random.rand()), float(torch.rand(1))


@pytest.mark.parametrize("place", [(0, 0, 0), (7, 12345, 3)])
def test_a_step_draws_the_same_whatever_was_drawn_before(place: tuple[int, int, int]) -> None:
    first = drawn(*place)
    for _ in range(5):
        random.random()
        np.random.rand()
        torch.rand(1)
    assert drawn(*place) == first


def test_every_seed_step_and_rank_draws_its_own() -> None:
    places = list(itertools.product(range(3), repeat=3))
    for found in zip(*(drawn(*place) for place in places), strict=True):
        assert len(set(found)) == len(places)  # (0, 1, 2) is not (2, 1, 0), nor their sum


def test_ranks_of_many_steps_are_independent() -> None:
    draws = torch.tensor([[drawn(0, step, rank)[2] for rank in (0, 1)] for step in range(200)])
    assert abs(float(torch.corrcoef(draws.T)[0, 1])) < 0.25
    assert float(draws.mean()) == pytest.approx(0.5, abs=0.05)
