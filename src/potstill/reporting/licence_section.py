"""Under which terms the text was written that a student learnt from, and what they ask of whoever uses it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from potstill.reporting.reading import Evaluation, shown
from potstill.reporting.sections import Column, Section, Table

SHOWN = ("provider", "model", "revision", "url", "retrieved", "sha256", "reviewer", "train_on_outputs", "export")
NAMES = {"url": "terms", "sha256": "hash of the terms", "train_on_outputs": "outputs may be trained on"}


def licence_section(evaluation: Evaluation) -> Section | None:
    run = evaluation["provenance"]["runs"].get(shown(evaluation)) or {}
    records = run.get("licence_records") or []
    if not records:
        return None
    words = ["The student learnt from text that these teachers wrote, under the terms that were reviewed beforehand."]
    words += [_override(record) for record in records if record["override_reason"]]
    columns = [Column(""), *(Column(record["model"], kind="code") for record in records)]
    rows = [[NAMES.get(name, name), *(record[name] for record in records)] for name in SHOWN]
    tables = [Table("Terms", columns, rows), *_duties(records)]
    return Section("licence", "Licence of the teacher's text", words, tables)


def _override(record: dict[str, Any]) -> str:
    return (
        f"Used against the terms' answer '{record['train_on_outputs']}' of {record['model']}. "
        f"Reason given: {record['override_reason']}"
    )


def _duties(records: list[dict[str, Any]]) -> Iterator[Table]:
    rows = [[record["model"], duty] for record in records for duty in record["duties"]]
    if rows:
        yield Table("Duties of whoever uses the student", [Column("by the terms of"), Column("duty")], rows)
