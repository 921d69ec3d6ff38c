"""Training data that grows: a part of what a source has, rows put to it, what a teacher wrote. For `data.source`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets

from potstill.data.content import content_hash, unit_interval
from potstill.data.generated import GeneratedText, generated
from potstill.data.quiet import quiet
from potstill.data.sources import files
from potstill.data.splits import select
from potstill.errors import UserError, nearest_hint
from potstill.generation.overlap import refuse_overlap, text_hash
from potstill.generation.terms import RECORDS

PROPOSALS, SUMMARY = "proposals.jsonl", "mined.json"
EXPORTS = "exports"  # column of a proposal that teachers wrote: which exports its text is from
_MARK = re.compile(r"^\s*(?:[-*\u2022]|\(?\d+[.):])\s+")  # of an item in a list


def part(source: DatasetDict, by: str, start: float = 0.0, stop: float = 1.0) -> DatasetDict:
    """`source` with only those training examples whose hash falls into [start, stop): two ranges share no example.

    by: the column that is hashed, so that equal inputs stay together. Other splits stay as they are.
    """
    if not 0 <= start < stop <= 1:
        fix = "For a tenth: data.source.start=0.0 data.source.stop=0.1"
        raise UserError("data.source.stop", stop, f"with start={start} leaves no range within 0 and 1.", fix)
    train = source["train"]
    if by not in train.column_names:
        raise UserError(
            "data.source.by", by, "is not a column of the train split.", nearest_hint(by, train.column_names)
        )
    kept = [start <= unit_interval(content_hash(value), "pool") < stop for value in train[by][:]]
    with quiet():
        return _like_source(source, {"train": select(train, kept).flatten_indices()})


def extended(source: DatasetDict, by: str, added: Sequence[str] = ()) -> DatasetDict:
    """`source` with further training examples, which have no gold label: the teacher says what they are.

    added: directories of `potstill mine`, or files with columns of the source. by: the column that is compared with the
    test split. The licence records of text among them come along. Raises UserError for an added row that is a test
    item, or a teacher's text without its record.
    """
    train = source["train"]
    test = {text_hash(str(value)) for value in source["test"][by][:]} if "test" in source else set()
    with quiet():
        tables = {path: _read(path) for path in added if not _is_empty(_file(path))}
        for path, table in tables.items():
            where = f"the test split, in {path}"
            refuse_overlap(enumerate(map(str, table[by][:])), test, where, "Take them out of that file.")
        records = [record for path, table in tables.items() for record in _records(path, table)]
        grown = concatenate_datasets([train, *(_like(train, table) for table in tables.values())])
    return _like_source(source, {"train": grown}, records)


def written(path: str, column: str = "text") -> GeneratedText:
    """What a teacher wrote (`potstill generate`), one input a line, as a pool; marks of lists are taken off."""
    export = generated(path)
    answers = export["train"]["answer"]
    lines = [_MARK.sub("", line).strip().strip('"') for answer in answers for line in str(answer).splitlines()]
    table = Dataset.from_dict({column: [line for line in lines if line]})
    return GeneratedText({"train": table}, export.licence_records)


def num_added(added: Sequence[str]) -> int:
    return sum(len(_file(path).read_text(encoding="utf-8").splitlines()) for path in added)


def _file(path: str) -> Path:
    return Path(path, PROPOSALS) if Path(path).is_dir() else Path(path)


def _is_empty(file: Path) -> bool:
    return file.is_file() and not file.stat().st_size


def _read(path: str) -> Dataset:
    return files(train=str(_file(path).absolute()))["train"]


def _records(path: str, table: Dataset) -> list[dict[str, Any]]:
    """The licence records of the texts in a file that `potstill mine` wrote; none of a file of the user's own."""
    summary = _file(path).with_name(SUMMARY)
    found = json.loads(summary.read_text(encoding="utf-8")).get(RECORDS, []) if summary.is_file() else []
    named = table[EXPORTS][:] if EXPORTS in table.column_names else []
    missing = {name for names in named for name in names or ()} - {record["export"] for record in found}
    if missing:
        problem = f"holds text that a teacher wrote (export {min(missing)}), without the licence record of {summary}."
        fix = "Give the directory that potstill mine wrote, whole: its mined.json goes with its proposals."
        raise UserError("data.source.added", path, problem, fix)
    return found


def _like_source(
    source: DatasetDict, changed: Mapping[str, Dataset], records: Sequence[dict[str, Any]] = ()
) -> DatasetDict:
    """`source` with other splits; what a teacher wrote among them keeps its papers."""
    splits = {**source, **changed}
    if isinstance(source, GeneratedText):
        return GeneratedText(splits, [*source.licence_records, *records], source.left_out)
    return GeneratedText(splits, records) if records else DatasetDict(splits)


def _like(train: Dataset, table: Dataset) -> Dataset:
    """The rows under the columns that `train` has, null where they have none."""
    rows = [{name: row.get(name) for name in train.column_names} for row in table]  # type: ignore[union-attr]
    return Dataset.from_list(rows, train.features)
