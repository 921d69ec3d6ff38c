"""A student carries the licence records of all that it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from potstill.commands.licences import licence_records
from potstill.commands.shared import Source
from potstill.config.schema import StudentConfig, TeacherConfig, TrainConfig
from potstill.errors import UserError
from potstill.generation.terms import licence_record

OWN, OTHER = ({"model": name, "duties": [f"duty of {name}"], "export": name} for name in ("own", "other"))


def run_with(directory: Path, *records: dict[str, Any]) -> str:
    """The student of a run with these on record."""
    directory.mkdir()
    (directory / "manifest.json").write_text(json.dumps({"licence_records": records}))
    return str(directory / "student")


def test_duties_are_inherited_from_teachers_and_from_what_the_student_begins_with(tmp_path: Path) -> None:
    source = Source(None, None, None, None, [OWN])  # type: ignore[arg-type]
    teacher = TeacherConfig(path=run_with(tmp_path / "teacher", OTHER))
    student = StudentConfig(path=run_with(tmp_path / "before", OWN, OTHER))
    assert licence_records(TrainConfig(teacher=teacher, student=student), source) == [OWN, OTHER]


def test_a_student_of_nobodys_text_has_no_record(tmp_path: Path) -> None:
    source = Source(None, None, None, None)  # type: ignore[arg-type]
    elsewhere = str(Path(run_with(tmp_path / "run", OTHER)).parent)
    assert licence_records(TrainConfig(teacher=TeacherConfig(path=elsewhere)), source) == []


def test_an_export_that_may_not_be_trained_on_needs_the_reason_that_it_was_made_with() -> None:
    export = {"terms": {"model": "m", "train_on_outputs": "unknown"}, "override_reason": None, "hash": "a1"}
    with pytest.raises(UserError, match="it may not be trained on"):
        licence_record(export)
    assert licence_record({**export, "override_reason": "asked them"})["override_reason"] == "asked them"
