"""The project's `evaluations.jsonl`: every opening of a test set, and which runs were chosen between on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filelock import FileLock

from potstill.errors import StoppedError


def entries(path: Path) -> list[dict[str, Any]]:
    """Every opening so far, of any test set, in order."""
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            message = (
                f"{path}, line {number}, is no JSON, so openings of the test set cannot be counted.\nMend that line."
            )
            raise StoppedError(message) from error
    return found


def openings(path: Path, test_set: str) -> list[dict[str, Any]]:
    """Those of one test set, by the hash of its manifest."""
    return [entry for entry in entries(path) if entry["test_set"] == test_set]


def record_opening(path: Path, entry: dict[str, Any]) -> None:
    """Append one line, whole, also where several processes do. Before the test set is opened: a crash counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
