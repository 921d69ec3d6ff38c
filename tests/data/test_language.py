from __future__ import annotations

import logging

import pytest
from datasets import Dataset

from potstill.data.batch import IGNORE
from potstill.data.language import LanguageEncoder
from tests.data.examples import CHAT, tokenizer

PAIRS = {"prompt": ["where does the train", "pay"], "completion": [" stop before noon", " rent"]}


def test_labels_are_the_ids_where_scored_and_ignored_on_prompt_and_padding() -> None:
    encoder = LanguageEncoder(tokenizer(), 32)
    batch = encoder.collate(list(encoder.encode(Dataset.from_dict(PAIRS))))  # type: ignore[arg-type]
    ids, mask, labels = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool(), batch.labels
    assert ids.shape == labels.shape
    assert (labels[~mask] == IGNORE).all()
    scored = labels != IGNORE
    assert (labels[scored] == ids[scored]).all()
    assert not scored[:, 0].any()


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_end_token_is_scored_though_it_pads_too(side: str) -> None:
    made = tokenizer(pad_token=None, padding_side=side)
    encoder = LanguageEncoder(made, 32)
    batch = encoder.collate(list(encoder.encode(Dataset.from_dict(PAIRS))))  # type: ignore[arg-type]
    for row in batch.labels.tolist():
        assert [label for label in row if label != IGNORE][-1] == made.eos_token_id
        assert row.count(made.eos_token_id) == 1


def test_all_three_forms_are_read_from_the_columns_there_are() -> None:
    encoder = LanguageEncoder(tokenizer(chat_template=CHAT), 64)
    messages = [[{"role": "user", "content": "pay"}, {"role": "assistant", "content": "rent"}]]
    for columns in ({"text": ["pay rent"]}, {"prompt": ["pay"], "completion": ["rent"]}, {"messages": messages}):
        (row,) = encoder.encode(Dataset.from_dict(columns))
        assert row["num_rows"] > 0 < row["scored_bytes"]  # type: ignore[index, call-overload]


def test_an_example_with_nothing_scored_is_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    prompts = ["where does the train stop before noon", "pay"]
    table = Dataset.from_dict({"prompt": prompts, "completion": [" no", " rent"]})
    with caplog.at_level(logging.WARNING):
        encoded = LanguageEncoder(tokenizer(), 6).encode(table)
    assert encoded["prompt"][:] == ["pay"]
    assert "1 of 2 examples have nothing scored" in caplog.text


def test_keys_tell_the_same_ids_apart_where_other_tokens_are_scored() -> None:
    encoder = LanguageEncoder(tokenizer(), 32)
    table = Dataset.from_dict({"prompt": ["pay my", "pay"], "completion": [" rent", " my rent"]})
    batch = encoder.collate(list(encoder.encode(table)))  # type: ignore[arg-type]
    assert batch.inputs["input_ids"][0].tolist() == batch.inputs["input_ids"][1].tolist()
    assert len(set(batch.keys)) == 2
