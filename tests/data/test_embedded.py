from __future__ import annotations

import platform
from pathlib import Path

import pytest

from potstill.config.schema import ColumnsConfig
from potstill.data.build import own_tokenizer
from potstill.data.embedded import Corpus, _library_files, digits, stdlib
from potstill.errors import UserError
from tests.data.examples import build, config


def test_digits_are_all_there_with_values_between_zero_and_one() -> None:
    table = digits()["train"]
    assert len(table) == 1797
    values = [value for row in table["image"][:50] for line in row for value in line]
    assert (min(values), max(values)) == (0.0, 1.0)
    assert set(table["label"]) == set("0123456789")
    assert table["digit"][:] == table["label"][:]


def test_digits_reach_a_batch_as_images() -> None:
    data = config(task="image_classification", columns=ColumnsConfig(image="image", label="label"), slices=["digit"])
    built = build(digits(), data, tokenizer=None)
    batch = next(iter(built.test_dataloader()))
    assert batch.inputs["pixel_values"].shape == (8, 1, 8, 8)
    assert [str(label) for label in batch.labels.tolist()] == built.slice_values("test")["digit"][:8]
    assert built.num_examples("train") > 1000


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return stdlib(block_length=32, max_bytes=400_000, vocabulary_size=512)


def test_blocks_have_about_the_length_asked_for_and_lose_no_text(corpus: Corpus) -> None:
    made = own_tokenizer(corpus)
    assert made is not None
    lengths = [len(ids) for ids in made(corpus["train"]["text"][:500])["input_ids"]]
    assert max(lengths) <= 36
    assert sorted(lengths)[len(lengths) // 2] == 32
    assert len("".join(corpus["train"]["text"]).encode()) > 200_000


def test_a_file_stands_on_one_side_of_the_split(corpus: Corpus) -> None:
    """Blocks of one file in train and test would be a leak."""
    joined = {split: "".join(table["text"]) for split, table in corpus.items()}
    for _, text in _library_files(400_000):
        if len(text) > 500:
            assert sum(text in split for split in joined.values()) == 1


def test_slices_are_top_level_packages_and_modules_without_tests_and_installed_packages(corpus: Corpus) -> None:
    packages = {package for table in corpus.values() for package in table["package"]}
    assert not packages & {"test", "site-packages", "dist-packages"}
    assert not any("." in package or "/" in package for package in packages)
    assert len(packages) > 20


def test_the_same_python_gives_the_same_corpus_and_the_fingerprint_knows_which_python(corpus: Corpus) -> None:
    again = stdlib(block_length=32, max_bytes=400_000, vocabulary_size=512)
    assert again["train"]["text"][:] == corpus["train"]["text"][:]
    assert platform.python_version() in corpus.provenance
    data = config(task="causal_lm", columns=ColumnsConfig(text="text"), slices=["package"], max_length=32)
    built = build(corpus, data, tokenizer=own_tokenizer(corpus))
    again.provenance = "Python 0.0"
    assert build(again, data, tokenizer=own_tokenizer(corpus)).fingerprint != built.fingerprint


def test_the_order_in_which_a_file_system_lists_files_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    before, listed = list(_library_files(200_000)), Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: reversed(list(listed(self, pattern))))
    assert list(_library_files(200_000)) == before


def test_a_python_without_its_source_is_told_apart_from_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    with pytest.raises(UserError) as error:
        stdlib()
    assert error.value.key == "data.source.max_bytes"
