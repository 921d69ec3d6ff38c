"""Evaluated runs, read from their directories for a comparison on test data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from potstill.errors import UserError
from potstill.evaluation.between_runs import Evaluated
from potstill.sweeps.record import RECORD

EVALUATION, ITEMS = "evaluation.json", "items.jsonl"
SAME = {
    "task": ("was evaluated on another task", "Compare runs of one task."),
    "metric": ("was measured by another metric", "Compare runs of one task."),
}


def is_evaluated(directory: Path) -> bool:
    """It holds an evaluation, and no sweep."""
    return (directory / EVALUATION).is_file() and not (directory / RECORD).exists()


def read_evaluated(directory: Path, name: str | None = None, place: str | None = None) -> Evaluated:
    """Raises UserError where the evaluation is of an older form, or lacks the items that paired tests need."""
    evaluation = json.loads((directory / EVALUATION).read_text(encoding="utf-8"))
    shown, fix = place or str(directory), "Evaluate it again: potstill evaluate run=..."
    if evaluation.get("schema_version", 1) < 2:
        raise UserError("paths", shown, "was evaluated by an earlier potstill, which kept no test items.", fix)
    if not (directory / ITEMS).is_file():
        raise UserError("paths", shown, f"holds no {ITEMS}, so that nothing can be paired.", fix)
    with (directory / ITEMS).open(encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    return Evaluated(name or directory.resolve().name, shown, evaluation, items)


def refuse_different(runs: Sequence[Evaluated]) -> None:
    """Raises UserError where not all were evaluated on one test set: their numbers would not compare."""
    first = runs[0]
    for run in runs[1:]:
        for key, (problem, fix) in SAME.items():
            if run.evaluation[key] != first.evaluation[key]:
                raise UserError("paths", run.place, f"{problem} than {first.place}.", fix)
        if [each["item"] for each in run.items] != [each["item"] for each in first.items]:
            problem = f"was evaluated on another test set than {first.place}{_counted(first, run)}."
            raise UserError("paths", run.place, problem, "By validation alone: metric=val/accuracy, or val/loss")


def _counted(first: Evaluated, run: Evaluated) -> str:
    """How far the two sets overlap, and by which manifests they are known."""
    sets = [{each["item"] for each in one.items} for one in (first, run)]
    manifests = [str(one.evaluation["data"].get("manifest"))[:12] for one in (run, first)]
    return (
        f" (manifest {manifests[0]}, not {manifests[1]}; {len(sets[0] & sets[1])} of {len(sets[1])} items are in both)"
    )
