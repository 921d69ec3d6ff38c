"""Runs of other seeds beside this one: what they were measured to be, and how far seeds alone carry them apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from potstill.errors import UserError


def read_seeds(paths: list[Path], test: str | None) -> list[dict[str, Any]]:
    """Of each run its seed and the main metric of its student and baseline, from the `evaluation.json` it has.

    test: hash of the test set. Raises UserError where a run was not evaluated, or on another test set.
    """
    return [_read(path, test) for path in paths]


def _read(path: Path, test: str | None) -> dict[str, Any]:
    file = path / "evaluation.json"
    if not file.is_file():
        problem = f"holds no evaluation.json ({file.absolute()})."
        raise UserError("seeds", str(path), problem, f"Write it: potstill evaluate run={path}")
    evaluation = json.loads(file.read_text(encoding="utf-8"))
    if evaluation["data"].get("manifest") != test:
        problem = "was evaluated on another test set, so that seeds would not be all that differs."
        raise UserError("seeds", str(path), problem, f"Evaluate it again: potstill evaluate run={path}")
    metric, models = evaluation["metric"], evaluation["models"]
    values = {name: models[name]["overall"][metric] if name in models else None for name in ("student", "baseline")}
    return {"path": str(path), "seed": evaluation["provenance"]["runs"]["student"]["seed"], **values}
