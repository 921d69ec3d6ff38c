from __future__ import annotations

import logging
from pathlib import Path

import pytest
from datasets import is_progress_bar_enabled

from potstill.data.sources import files, hub
from potstill.errors import UserError
from tests.data.examples import queries


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "arrow"])
def test_every_format_gives_the_same_examples(suffix: str, tmp_path: Path) -> None:
    path, table = tmp_path / f"train.{suffix}", queries(5)
    if suffix == "arrow":
        table.save_to_disk(str(tmp_path / "saved"))
        next((tmp_path / "saved").glob("*.arrow")).rename(path)
    else:
        {"jsonl": table.to_json, "csv": table.to_csv, "parquet": table.to_parquet}[suffix](str(path))
    assert files(str(path))["train"].to_dict() == table.to_dict()


def test_tabs_separate_where_the_suffix_says_so(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("text\tintent\na, b\tpay\n")
    assert files("train.tsv", root=str(tmp_path))["train"][0] == {"text": "a, b", "intent": "pay"}


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    for number in (3, 4):
        queries(number).to_json(str(path))
        assert len(files(str(path))["train"]) == number


def test_the_format_may_be_said_where_the_suffix_does_not(tmp_path: Path) -> None:
    queries(2).to_json(str(tmp_path / "train.data"))
    assert len(files("train.data", format="json", root=str(tmp_path))["train"]) == 2
    with pytest.raises(UserError) as error:
        files("train.data", root=str(tmp_path))
    assert error.value.key == "data.source.format"


def test_a_missing_file_is_named_in_full_with_the_nearest_there_is(tmp_path: Path) -> None:
    queries(2).to_json(str(tmp_path / "train.jsonl"))
    with pytest.raises(UserError) as error:
        files("trian.jsonl", root=str(tmp_path))
    assert error.value.key == "data.source.train"
    assert str(tmp_path / "trian.jsonl") in str(error.value)
    assert "Nearest: 'train.jsonl'" in str(error.value)


@pytest.mark.parametrize("content", ['{"text": "a"}\n{"text": \n', ""])
def test_a_broken_or_empty_file_is_the_users_to_mend(content: str, tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text(content)
    queries(2).to_json(str(tmp_path / "train.jsonl"))
    with pytest.raises(UserError) as error:
        files("train.jsonl", test="test.jsonl", root=str(tmp_path))
    assert error.value.key == "data.source.test"


def test_the_users_progress_bars_come_back(tmp_path: Path) -> None:
    queries(2).to_json(str(tmp_path / "train.jsonl"))
    before = is_progress_bar_enabled()
    files("train.jsonl", root=str(tmp_path))
    assert is_progress_bar_enabled() == before


def test_what_is_read_is_kept_in_our_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    queries(2).to_json(str(tmp_path / "train.jsonl"))
    (kept,) = files("train.jsonl", root=str(tmp_path))["train"].cache_files
    assert Path(kept["filename"]).is_relative_to(tmp_path / "cache" / "potstill")


def test_the_hubs_names_of_splits_can_be_mapped(tmp_path: Path) -> None:
    for split, number in (("train", 4), ("test", 2)):
        queries(number).to_json(str(tmp_path / f"{split}.jsonl"))
    assert {split: len(table) for split, table in hub(str(tmp_path)).items()} == {"train": 4, "test": 2}
    assert set(hub(str(tmp_path), splits={"train": "train", "validation": "test"})) == {"train", "validation"}
    with pytest.raises(UserError, match="Nearest: 'train'") as error:
        hub(str(tmp_path), splits={"train": "trian"})
    assert error.value.key == "data.source.splits.train"


def test_a_set_that_cannot_be_had_is_the_users_to_mend_and_no_revision_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(UserError) as error:
        hub("potstill/no-such-data")
    assert error.value.key == "data.source.name"
    assert "data.source.revision" in caplog.text
