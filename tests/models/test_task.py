"""Rows of a batch: the label shift, and the counts that losses are divided by."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from potstill.data.batch import IGNORE, Batch
from potstill.errors import UserError
from potstill.models.task import TASKS, find_task

from .tiny import causal_batch, image_batch, text_batch

CAUSAL, TEXT, IMAGE = TASKS["causal_lm"], TASKS["text_classification"], TASKS["image_classification"]
TEXTS = [[5, 6, 7, 8, 9], [10, 11, 12]]


def test_a_position_is_scored_on_the_token_after_it():
    batch = causal_batch(TEXTS, [2, 1])
    rows = CAUSAL.scored_rows(batch)
    assert rows is not None
    assert rows.tolist() == [1, 2, 3, 5, 6]
    assert CAUSAL.row_labels(batch).tolist() == [7, 8, 9, 11, 12]


def test_the_last_token_of_one_text_does_not_predict_the_first_of_the_next():
    batch = causal_batch([[5, 6], [7, 8]], [0, 0])
    assert CAUSAL.row_labels(batch).tolist() == [6, 8]


@pytest.mark.parametrize("padding", [{"left": 2}, {"right": 2}, {"left": 1, "right": 1}], ids=str)
def test_padding_adds_no_row_and_moves_no_label(padding: dict[str, int]):
    rows = {"labelled": 6, "scored": 6, "positions": 8, "examples": 2}
    plain, padded = causal_batch(TEXTS, [0, 1]), causal_batch(TEXTS, [0, 1], **padding)
    assert CAUSAL.row_labels(padded).tolist() == CAUSAL.row_labels(plain).tolist()
    assert CAUSAL.count_rows(padded) == CAUSAL.count_rows(plain) == rows


def test_an_end_of_sequence_token_that_is_also_the_pad_token_is_scored():
    batch = causal_batch([[5, 6, 0], [7, 0]], [1, 1])
    assert CAUSAL.row_labels(batch).tolist() == [6, 0, 0]


def test_unlabelled_examples_are_scored_but_not_labelled():
    rows = {"labelled": 1, "scored": 2, "positions": 8, "examples": 2}
    assert TEXT.count_rows(text_batch(TEXTS, [1, IGNORE])) == rows


def test_an_image_counts_as_one_position():
    assert IMAGE.count_rows(image_batch(3)) == {"labelled": 3, "scored": 3, "positions": 3, "examples": 3}
    assert IMAGE.scored_rows(image_batch(3)) is None


def test_without_a_mask_every_position_is_attended():
    batch = Batch({"input_ids": torch.tensor([[5, 6], [7, 8]])}, torch.tensor([0, 1]), ("a", "b"))
    assert TEXT.count_rows(batch)["positions"] == 4


@pytest.mark.parametrize("padding", [{}, {"left": 2}, {"right": 2}], ids=str)
def test_every_row_has_the_weight_of_its_own_example(padding: dict[str, int]):
    weights = torch.tensor([2.0, 3.0])
    found = CAUSAL.row_weights(replace(causal_batch(TEXTS, [2, 1], **padding), weights=weights))
    assert found["scored"].tolist() == [2.0, 2.0, 2.0, 3.0, 3.0]
    assert found["positions"].tolist() == [2.0] * 5 + [3.0] * 3
    assert TEXT.row_weights(replace(text_batch(TEXTS, [0, 1]), weights=weights))["labelled"].tolist() == [2.0, 3.0]


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(UserError, match="'causal_lm'"):
        find_task("causal_ml")


@pytest.mark.parametrize("padding", [{"left": 2}, {"right": 2}, {"left": 1, "right": 1}], ids=str)
def test_padding_is_no_part_of_a_length(padding: dict[str, int]):
    lengths = TEXT.lengths(text_batch(TEXTS, [0, 1], **padding))
    assert lengths is not None
    assert lengths.tolist() == [len(text) for text in TEXTS]
    assert IMAGE.lengths(image_batch(3)) is None
