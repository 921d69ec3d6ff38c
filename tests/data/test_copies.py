"""The repair of contamination: training examples go, test examples stay, and a run that did so says so."""

from __future__ import annotations

import logging

import pytest
from datasets import Dataset

from potstill.errors import UserError
from tests.audit.examples import sentences
from tests.data.examples import build, config

TEST = sentences(40, seed=0)


def table(texts: list[str]) -> Dataset:
    intents = [("pay", "travel", "chat")[number % 3] for number in range(len(texts))]
    return Dataset.from_dict({"text": texts, "intent": intents, "domain": ["road"] * len(texts)})


def test_the_repair_drops_from_train_and_never_from_test(caplog: pytest.LogCaptureFixture) -> None:
    train = [*sentences(60, seed=1), TEST[5].upper() + "!", TEST[5] + " x"]
    source = {"train": table(train), "validation": table(sentences(20, seed=2)), "test": table(TEST)}
    with caplog.at_level(logging.INFO):
        built = {how: build(source, config(drop_copies=how)) for how in (None, "exact", "near")}
    sizes = {
        how: [data.num_examples(split) for split in ("train", "validation", "test")] for how, data in built.items()
    }
    assert sizes == {None: [62, 20, 40], "exact": [61, 20, 40], "near": [60, 20, 40]}
    assert built["near"].example_text("test") == built[None].example_text("test")
    assert len({data.fingerprint for data in built.values()}) == 3, "runs on other training sets must be told apart"
    assert "data.drop_copies=near: 2 of 62 train examples stand in test and are dropped." in caplog.messages


def test_a_training_set_that_is_all_test_is_refused() -> None:
    with pytest.raises(UserError, match="no examples"):
        build({split: table(TEST) for split in ("train", "validation", "test")}, config(drop_copies="exact"))
