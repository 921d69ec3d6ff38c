"""Tokenizers whose models' logits are compared must be the same in every id."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from potstill.errors import UserError
from potstill.models.tokenizers import check_same_tokenizer, load_tokenizer

WORDS = ["[UNK]", "[PAD]", "Distil", "distil", "the", "drops", "one"]


def tokenizer(
    words: list[str] = WORDS, *, lowercase: bool = False, pad_token: str = "[PAD]"
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    if lowercase:
        backend.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token=pad_token)


def test_equal_tokenizers_pass_whatever_their_object():
    check_same_tokenizer(tokenizer(), tokenizer())


def test_swapped_ids_are_named():
    with pytest.raises(UserError, match=r"token 'drops' is 4 here, 5 there") as caught:
        check_same_tokenizer(tokenizer(["[UNK]", "[PAD]", "Distil", "distil", "drops", "the", "one"]), tokenizer())
    assert caught.value.key == "student.tokenizer"


def test_a_missing_token_is_named():
    with pytest.raises(UserError, match=r"token 'one' is None here, 6 there"):
        check_same_tokenizer(tokenizer(WORDS[:-1]), tokenizer())


def test_another_special_token_is_named():
    with pytest.raises(UserError, match="special token 'pad_token'"):
        check_same_tokenizer(tokenizer(pad_token="[UNK]"), tokenizer())


def test_the_same_vocabulary_applied_to_other_text_is_refused():
    with pytest.raises(UserError, match=r"they cut .*'distil'.* and .*'Distil'"):
        check_same_tokenizer(tokenizer(lowercase=True), tokenizer())


def test_a_saved_tokenizer_equals_itself(tmp_path: Path):
    tokenizer().save_pretrained(tmp_path)
    check_same_tokenizer(load_tokenizer(str(tmp_path)), tokenizer())


def test_a_directory_without_a_tokenizer_is_the_users_fault(tmp_path: Path):
    with pytest.raises(UserError) as caught:
        load_tokenizer(str(tmp_path), key="teacher.path")
    assert caught.value.key == "teacher.path"
