"""Evaluated runs, read from their directories for a comparison on test data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from potstill.errors import UserError
from potstill.evaluation.answers import OF_ANSWERS
from potstill.evaluation.between_runs import Evaluated
from potstill.sweeps.record import RECORD

EVALUATION, ITEMS = "evaluation.json", "items.jsonl"
SAME = {
    "task": ("was evaluated on another task", "Compare runs of one task."),
    "metric": ("was measured by another metric", "Compare runs of one task, evaluated with the same generate.answer."),
}
ANSWERED = ("n", "max_new_tokens")  # of the block `generation`; prompts are chosen by content, so that n says which


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
        _refuse_other_answers(first, run)
        if [each["item"] for each in run.items] != [each["item"] for each in first.items]:
            problem = f"was evaluated on another test set than {first.place}{_counted(first, run)}."
            raise UserError("paths", run.place, problem, "By validation alone: metric=val/accuracy, or val/loss")


def _refuse_other_answers(first: Evaluated, run: Evaluated) -> None:
    """Where runs are compared by what they wrote, they wrote to the same prompts."""
    blocks = [each.evaluation.get("generation") or {} for each in (first, run)]
    if first.evaluation["metric"] in OF_ANSWERS and any(blocks[0][key] != blocks[1][key] for key in ANSWERED):
        problem = f"was evaluated on other prompts, or with other limits of an answer, than {first.place}."
        fix = "Evaluate both with the same generate.limit and generate.max_new_tokens."
        raise UserError("paths", run.place, problem, fix)


def _counted(first: Evaluated, run: Evaluated) -> str:
    """How far the two sets overlap, and by which manifests they are known."""
    sets = [{each["item"] for each in one.items} for one in (first, run)]
    manifests = [str(one.evaluation["data"].get("manifest"))[:12] for one in (run, first)]
    return (
        f" (manifest {manifests[0]}, not {manifests[1]}; {len(sets[0] & sets[1])} of {len(sets[1])} items are in both)"
    )
