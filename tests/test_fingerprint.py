"""A fingerprint that misses a change lets a recipe skip what it should repeat; one that sees too much repeats all."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.fingerprint import fingerprint


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.jsonl").write_text("one")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "recipe" / "stage"


@pytest.mark.parametrize("config", [{"train": "train.jsonl"}, {"a": [{"b": "train.jsonl"}]}])
def test_a_file_that_changes_is_seen(config, own):
    before = fingerprint(config, own)
    Path("train.jsonl").touch()
    assert fingerprint(config, own) == before
    Path("train.jsonl").write_text("two")
    assert fingerprint(config, own) != before


def test_a_directory_is_seen_by_content_and_names(own):
    before = fingerprint({"path": "model"}, own)
    Path("model/config.json").rename("model/other.json")
    renamed = fingerprint({"path": "model"}, own)
    Path("model/other.json").write_text("{1}")
    assert len({before, renamed, fingerprint({"path": "model"}, own)}) == 3


@pytest.mark.parametrize("root", ["folder", "../folder", "."])
def test_a_file_under_a_root_is_seen(root, own, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    file = here / root / "train.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text("one")
    config = {"source": {"root": root, "train": "train.jsonl"}}
    before = fingerprint(config, own)
    file.write_text("two")
    assert fingerprint(config, own) != before
    file.write_text("one")
    (file.parent / "unrelated").write_text("x")
    assert fingerprint(config, own) == before


def test_what_the_command_writes_itself_is_not_input(own):
    config = {"directory": str(own / "checkpoints")}
    before = fingerprint(config, own)
    (own / "checkpoints").mkdir(parents=True)
    (own / "checkpoints" / "best.ckpt").write_text("weights")
    assert fingerprint(config, own) == before


def test_a_recipe_may_be_moved(own, tmp_path):
    moved = tmp_path / "elsewhere" / "stage"
    config = {"callbacks": {"directory": str(own / "checkpoints")}}
    there = {"callbacks": {"directory": str(moved / "checkpoints")}}
    assert fingerprint(config, own) == fingerprint(there, moved)


@pytest.mark.parametrize("other", [{"seed": 1}, {"seed": 0, "extra": None}, {}])
def test_a_config_that_changes_is_seen(other, own):
    assert fingerprint({"seed": 0}, own) != fingerprint(other, own)
    assert fingerprint({"seed": 0}, own) == fingerprint({"seed": 0}, own)


def test_code_that_changes_is_seen(own, monkeypatch):
    before = fingerprint({}, own)
    monkeypatch.setattr("potstill.fingerprint._source_hash", lambda: "other code")
    assert fingerprint({}, own) != before


def test_a_text_too_long_for_the_name_of_a_file_is_a_value_like_any_other(own):
    template = "say it in other words, {{ text }}. " * 10
    assert fingerprint({"template": template}, own) == fingerprint({"template": template}, own)
    assert fingerprint({"template": template}, own) != fingerprint({"template": f"{template}!"}, own)
