from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from potstill.data.generated import GeneratedText
from potstill.data.pool import extended, num_added, part, written
from potstill.errors import UserError
from tests.data.exports import export


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


def mined(folder: Path, row: dict[str, object], **summary: object) -> str:
    """What `potstill mine` leaves of one proposal."""
    folder.mkdir()
    (folder / "proposals.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "mined.json").write_text(json.dumps(summary))
    return str(folder)


def test_the_terms_of_a_teachers_text_come_along_whatever_is_made_of_it(tmp_path: Path):
    pool = written(export(tmp_path, [{"prompt": "write", "answer": "- one\n- two"}], duties=["name it"]))
    assert pool["train"]["text"][:] == ["one", "two"]
    [record] = pool.licence_records
    assert (record["model"], record["duties"]) == ("m", ["name it"])
    row = {"text": "one", "exports": [record["export"]]}
    added = [mined(tmp_path / "mined", row, licence_records=[record]), mined(tmp_path / "own", {"text": "two"})]
    other = {**record, "model": "n"}
    wrote = GeneratedText(source(), [other])
    for begun, records in ((source(), [record]), (wrote, [other, record]), (part(wrote, "text"), [other, record])):
        grown = extended(begun, "text", added)
        assert isinstance(grown, GeneratedText)
        assert grown.licence_records == records
    assert not isinstance(extended(source(), "text", added[1:]), GeneratedText), "nobody wrote what was mined there"


def test_a_teachers_text_without_its_terms_is_refused(tmp_path: Path):
    row = {"text": "one", "exports": ["a1"]}
    lost = mined(tmp_path / "lost", row, licence_records=[{"export": "b2"}])
    (tmp_path / "alone.jsonl").write_text(json.dumps(row) + "\n")
    for added in (lost, str(tmp_path / "alone.jsonl")):
        with pytest.raises(UserError, match=r"(?s)export a1.*without the licence record.*mined\.json"):
            extended(source(), "text", [added])
