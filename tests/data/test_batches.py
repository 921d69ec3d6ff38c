from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from potstill.data.batches import BatchView, GlobalBatches
from potstill.data.encoders import ImageEncoder
from potstill.data.microbatch import cut


def batches(num_examples: int, *, rank: int = 0, world_size: int = 1, epoch: int = 0, **options) -> list[list[int]]:
    sampler = GlobalBatches(num_examples, 8, rank=rank, world_size=world_size, **options)
    sampler.set_epoch(epoch)
    found = list(sampler)
    assert len(found) == len(sampler)
    return found


@pytest.mark.parametrize("num_examples", [1, 7, 8, 9, 64, 67])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_example_comes_once_an_epoch_the_short_batch_included(num_examples: int, grouped: bool) -> None:
    lengths = np.arange(num_examples) % 5 if grouped else None
    found = batches(num_examples, seed=0, lengths=lengths)
    assert sorted(index for batch in found for index in batch) == list(range(num_examples))


@pytest.mark.parametrize("num_examples", [64, 67, 65])
def test_the_ranks_shares_make_up_the_batch_that_one_rank_would_have(num_examples: int) -> None:
    """The global batch, hence the gradient, must not depend on the number of ranks."""
    alone = batches(num_examples, seed=3)
    shares = [batches(num_examples, seed=3, rank=rank, world_size=3) for rank in range(3)]
    assert len({len(share) for share in shares}) == 1
    for number, batch in enumerate(alone):
        assert sorted(index for share in shares for index in share[number]) == sorted(batch)


def test_a_rank_with_nothing_left_still_takes_part() -> None:
    assert batches(9, rank=1, world_size=2) == [[1, 3, 5, 7], []]


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    orders = {(seed, epoch): batches(40, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert orders[0, 1] == batches(40, seed=0, epoch=1)
    assert len({str(order) for order in orders.values()}) == 4, "seed 0 in epoch 1 must not repeat seed 1 in epoch 0"


def test_without_a_seed_the_order_is_that_of_the_data() -> None:
    assert batches(10, epoch=5) == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]


def test_grouping_pads_less_and_still_shuffles() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=400)

    def padded(found: list[list[int]]) -> int:
        return sum(len(batch) * int(lengths[batch].max()) for batch in found)

    grouped = batches(400, seed=0, lengths=lengths)
    assert padded(grouped) < 0.65 * padded(batches(400, seed=0))
    assert grouped != batches(400, seed=0, epoch=1, lengths=lengths)
    longest = [int(lengths[batch].max()) for batch in grouped]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_an_empty_share_has_the_shapes_of_a_real_batch() -> None:
    table = Dataset.from_dict({"image": [[[0.0, 1.0]]] * 3, "label": [0, 1, 0]})
    view = BatchView(table, ImageEncoder())
    empty = view[[]]
    assert empty.inputs["pixel_values"].shape == (0, *view[[0]].inputs["pixel_values"].shape[1:])
    assert len(empty) == 0
    assert empty.labels.dtype == torch.int64


def test_a_batch_keeps_the_order_it_was_asked_for() -> None:
    table = Dataset.from_dict({"image": [[[float(number)]] for number in range(5)], "label": list(range(5))})
    batch = BatchView(table, ImageEncoder())[[3, 1, 4]]
    assert batch.labels.tolist() == [3, 1, 4]
    assert [piece.numbers.tolist() for piece in cut(batch, 2, None) if piece.numbers is not None] == [[3, 1], [4]]


@pytest.mark.parametrize("num_batches", [0, 3, 6, 7, 15])
@pytest.mark.parametrize("grouped", [False, True])
def test_what_follows_a_number_of_batches_is_what_would_have_followed(num_batches: int, grouped: bool) -> None:
    options = {"seed": 2, "lengths": np.arange(43) % 7 if grouped else None}
    epochs = [batches(43, epoch=epoch, **options) for epoch in range(4)]
    sampler = GlobalBatches(43, 8, rank=0, world_size=1, **options)
    sampler.go_on_after(num_batches)
    first = num_batches // len(sampler)
    found = []
    for epoch in range(first, 4):
        sampler.set_epoch(epoch)
        found += list(sampler)
    assert found == [batch for epoch in epochs for batch in epoch][num_batches:]
