from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from potstill.data.pool import extended, num_added, part
from potstill.errors import UserError


def source(num: int = 200) -> DatasetDict:
    train = Dataset.from_dict({"text": [f"row {n % 150}" for n in range(num)], "intent": ["a"] * num})
    return DatasetDict({"train": train, "test": Dataset.from_dict({"text": ["Tested!"], "intent": ["a"]})})


def test_two_ranges_share_no_text_and_together_are_all():
    kept, rest = (part(source(), "text", *place)["train"]["text"][:] for place in ((0.0, 0.1), (0.1, 1.0)))
    assert set(kept).isdisjoint(rest)
    assert sorted([*kept, *rest]) == sorted(source()["train"]["text"][:])
    assert 0 < len(kept) < len(rest)
    with pytest.raises(UserError, match="leaves no range"):
        part(source(), "text", 0.5, 0.5)
    with pytest.raises(UserError, match="Nearest: 'text'"):
        part(source(), "txt")


def test_added_rows_have_no_label_and_only_the_columns_of_train(tmp_path: Path):
    folder = tmp_path / "mined"
    folder.mkdir()
    (folder / "proposals.jsonl").write_text('{"text": "new", "intent": null, "cluster": 3}\n')
    (tmp_path / "none.jsonl").write_text("")
    added = [str(folder), str(tmp_path / "none.jsonl")]
    grown = extended(source(), "text", added)
    assert grown["train"].column_names == ["text", "intent"]
    assert grown["train"][-1] == {"text": "new", "intent": None}
    assert len(grown["train"]) == 201
    assert grown["test"].to_dict() == source()["test"].to_dict()
    assert num_added(added) == 1


def test_an_added_test_item_is_refused(tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text('{"text": "fine"}\n{"text": " tested"}\n')
    with pytest.raises(UserError, match="are test items of the test split"):
        extended(source(), "text", [str(tmp_path / "rows.jsonl")])
