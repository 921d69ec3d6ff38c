from __future__ import annotations

from pathlib import Path

import pytest

from potstill.data.tokenizers import END, byte_level_bpe
from tests.data.examples import TEXT

TEXTS = [TEXT, "def stop(train):\n    return train.noon\n"] * 3


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "potstill" / "tokenizers"


def test_any_text_comes_back_as_it_was() -> None:
    made = byte_level_bpe(TEXTS, 300)
    text = "  tabs\tand caf\u00e9 \U0001f642\n\n    return None"
    assert made.decode(made(text)["input_ids"], skip_special_tokens=True) == text


def test_one_token_begins_ends_and_pads() -> None:
    made = byte_level_bpe(TEXTS, 300)
    assert made("train")["input_ids"][0] == made.bos_token_id == made.eos_token_id == made.pad_token_id
    assert made.convert_tokens_to_ids(END) == made.bos_token_id
    assert len(made) <= 300


def test_a_second_call_reads_the_cache_and_gives_the_same(cache: Path) -> None:
    first = byte_level_bpe(TEXTS, 300)
    (directory,) = cache.iterdir()
    written = (directory / "tokenizer.json").stat().st_mtime_ns
    second = byte_level_bpe(TEXTS, 300)
    assert (directory / "tokenizer.json").stat().st_mtime_ns == written
    assert second(TEXT)["input_ids"] == first(TEXT)["input_ids"]


def test_training_twice_gives_the_same_vocabulary(cache: Path) -> None:
    first = byte_level_bpe(TEXTS, 300).get_vocab()
    cache.rename(cache.parent / "elsewhere")
    assert byte_level_bpe(TEXTS, 300).get_vocab() == first


def test_another_corpus_or_size_is_another_tokenizer(cache: Path) -> None:
    byte_level_bpe(TEXTS, 300)
    byte_level_bpe(TEXTS, 290)
    byte_level_bpe([*TEXTS, "more"], 300)
    assert len(list(cache.iterdir())) == 3, "or a half-written one was left behind"
