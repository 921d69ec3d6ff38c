"""Files that bring a tokenizer made of their own text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from potstill.data.build import own_tokenizer
from potstill.data.vocabulary import files_with_tokenizer
from potstill.errors import UserError


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_tokenizer_is_made_of_the_training_file_alone(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [{"question": "how many ducks", "answer": "four ducks", "id": 1}] * 9)
    test = write(tmp_path / "test.jsonl", [{"question": "zebra zebra zebra", "answer": "zebra", "id": 1}] * 9)
    corpus = files_with_tokenizer(train, test=test, vocabulary_size=300)
    tokens = own_tokenizer(corpus)
    assert tokens is not None
    assert len(tokens.tokenize("ducks")) < len(tokens.tokenize("zebra")) == 5
    assert corpus["test"]["answer"][0] == "zebra"


def test_a_file_without_text_is_refused(tmp_path: Path) -> None:
    train = write(tmp_path / "train.jsonl", [{"id": 1}])
    with pytest.raises(UserError, match="no column of text"):
        files_with_tokenizer(train)
