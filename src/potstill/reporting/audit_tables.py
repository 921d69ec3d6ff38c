"""What `audit.json` lists, as rows: for CSV files and for W&B."""

from __future__ import annotations

import csv
import io
from typing import Any

Rows = list[dict[str, Any]]

COLUMNS = {  # of tables that may be empty
    "contamination": ("item", "kind", "field", "split", "other", "jaccard", "share", "text", "other_text"),
    "cells": ("cell", "column", "status", "num_transfer", "transfer_share", "num_sample", "sample_share"),
    "review": ("split", "item", "text", "gold", "teacher", "confidence_in_gold"),
    "conflicts": ("split", "text", "labels", "items"),
}


def tables_of(audit: dict[str, Any]) -> dict[str, Rows]:
    """`{"contamination": rows, "cells": rows, "review": rows, "conflicts": rows}`, all rows of a table alike."""
    splits = (audit["teacher_quality"] or {}).items()
    tables = {
        "contamination": audit["contamination"]["items"],
        "cells": audit["coverage"]["cells"],
        "review": [{"split": split, **row} for split, look in splits for row in look.get("review", ())],
        "conflicts": [{"split": split, **_flat(row)} for split, look in splits for row in look["conflicts"]],
    }
    return {name: _alike(rows, COLUMNS[name]) for name, rows in tables.items()}


def csv_text(name: str, rows: Rows) -> str:
    """name: of the table, whose heading is there without a row, too."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]) if rows else COLUMNS[name], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _alike(rows: Rows, columns: tuple[str, ...]) -> Rows:
    names = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    return [{name: row.get(name) for name in names} for row in rows]


def _flat(conflict: dict[str, Any]) -> dict[str, Any]:
    labels = ", ".join(f"{label} ({count})" for label, count in conflict["labels"].items())
    return {"text": conflict["text"], "labels": labels, "items": " ".join(map(str, conflict["items"]))}
