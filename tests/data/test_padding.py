from __future__ import annotations

import pytest

from potstill.data.padding import Padding, check_max_length, padding_of
from potstill.data.tokenizers import END
from potstill.errors import UserError
from tests.data.examples import tokenizer, without_special_tokens


def test_padding_goes_to_the_side_the_tokenizer_says() -> None:
    ids = [[5, 6, 7], [8]]
    right, left = Padding(0, "right").inputs(ids), Padding(0, "left").inputs(ids)
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert left["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_real_token_that_is_also_the_padding_token_stays_attended() -> None:
    assert Padding(9, "right").inputs([[5, 9], [9]])["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_no_batch_has_width_zero() -> None:
    assert Padding(0, "right").inputs([[]])["input_ids"].shape == (1, 1)


def test_a_tokenizer_without_padding_token_pads_with_its_end_token() -> None:
    made = tokenizer(pad_token=None, padding_side="left")
    assert padding_of(made) == Padding(made.get_vocab()[END], "left")


def test_a_tokenizer_with_neither_is_refused() -> None:
    with pytest.raises(UserError) as error:
        padding_of(without_special_tokens())
    assert error.value.key == "student.tokenizer"


def test_more_tokens_than_the_model_has_positions_are_refused() -> None:
    check_max_length(tokenizer(model_max_length=16), 16)
    with pytest.raises(UserError, match=r"at most data\.max_length=16"):
        check_max_length(tokenizer(model_max_length=16), 17)
