from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from potstill.data.batch import Batch
from potstill.data.microbatch import cut
from potstill.data.slots import slot_lengths

LENGTHS = [3, 9, 1, 4, 4, 12, 2, 7]


def text_batch(lengths: list[int], side: str = "right", extra: int = 0) -> Batch:
    """Ids that tell example and position; language-model labels, padding on one side, `extra` columns of nothing."""
    width = max(lengths) + extra
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.int64), torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        columns = slice(width - length, width) if side == "left" else slice(0, length)
        ids[row, columns] = 100 * (row + 1) + torch.arange(length)
        mask[row, columns] = 1
    labels = torch.where(mask.bool(), ids, -100)
    return Batch({"input_ids": ids, "attention_mask": mask}, labels, tuple(f"key {row}" for row in range(len(lengths))))


def content(batch: Batch) -> dict[str, list[int]]:
    """What of each example the model attends to."""
    rows = zip(batch.keys, batch.inputs["input_ids"], batch.inputs["attention_mask"], strict=True)
    return {key: ids[mask.bool()].tolist() for key, ids, mask in rows}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("max_examples", "max_tokens"), [(1, None), (3, None), (None, 12), (None, 20), (2, 16), (99, 999)]
)
def test_every_example_is_in_exactly_one_piece_unharmed(side: str, max_examples: int, max_tokens: int) -> None:
    batch = text_batch(LENGTHS, side, extra=3)
    pieces = cut(batch, max_examples, max_tokens)
    assert sorted(key for piece in pieces for key in piece.keys) == sorted(batch.keys)
    united = {key: ids for piece in pieces for key, ids in content(piece).items()}
    assert united == content(batch)


@pytest.mark.parametrize("max_tokens", [1, 8, 12, 13, 25, 40])
def test_no_piece_exceeds_the_token_limit_unless_it_is_one_example(max_tokens: int) -> None:
    for piece in cut(text_batch(LENGTHS, extra=5), None, max_tokens):
        assert piece.inputs["input_ids"].numel() <= max_tokens or len(piece) == 1


@pytest.mark.parametrize("max_tokens", [1, 8, 12, 13, 25, 30, 40])
def test_packed_pieces_are_filled_to_the_limit_and_not_above(max_tokens: int) -> None:
    pieces = cut(text_batch(LENGTHS, extra=5), None, max_tokens, packs=True)
    slots = [slot_lengths(piece.inputs["attention_mask"].sum(dim=1).numpy()) for piece in pieces]
    for own, following in pairwise(slots):
        assert own.sum() <= max_tokens or len(own) == 1
        assert own.sum() + following[0] > max_tokens
    assert sorted(key for piece in pieces for key in piece.keys) == sorted(text_batch(LENGTHS).keys)


def test_the_longest_come_together_so_that_little_is_padded() -> None:
    pieces = cut(text_batch(LENGTHS), None, 24)
    lengths = [piece.inputs["attention_mask"].sum(dim=1).tolist() for piece in pieces]
    assert lengths == [[12, 9], [7, 4, 4], [3, 2, 1]]


@pytest.mark.parametrize("side", ["left", "right"])
def test_columns_that_only_pad_are_cut_off_on_either_side(side: str) -> None:
    for piece in cut(text_batch([2, 5, 3], side, extra=4), 1, None):
        assert piece.inputs["attention_mask"].all()
        assert torch.equal(piece.inputs["input_ids"], piece.labels)


def test_labels_of_a_classifier_are_not_taken_for_columns() -> None:
    batch = text_batch([2, 4])
    batch.labels = torch.tensor([0, 1])
    assert [piece.labels.tolist() for piece in cut(batch, 1, None)] == [[0], [1]]


def test_without_limits_the_batch_is_left_as_it_is() -> None:
    batch = text_batch(LENGTHS)
    assert cut(batch, None, None)[0] is batch
    assert len(cut(batch, None, None)) == 1


def test_images_know_no_tokens() -> None:
    batch = Batch({"pixel_values": torch.arange(5.0).view(5, 1, 1, 1)}, torch.arange(5), tuple("abcde"))
    assert cut(batch, None, 1) == [batch]
    assert [piece.labels.tolist() for piece in cut(batch, 2, 1)] == [[0, 1], [2, 3], [4]]


def test_an_empty_share_of_a_batch_stays_one_empty_piece() -> None:
    batch = Batch({name: value[:0] for name, value in text_batch([3]).inputs.items()}, torch.zeros(0), ())
    assert [len(piece) for piece in cut(batch, 2, 8)] == [0]


def test_an_example_of_padding_alone_does_not_stop_the_cut() -> None:
    batch = text_batch([2, 2])
    batch.inputs["attention_mask"][0] = 0
    assert [piece.inputs["input_ids"].shape for piece in cut(batch, 1, None)] == [(1, 1), (1, 2)]
