"""The test set of an evaluation: the one that the run was split from, and a count of how often it was opened."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from potstill.commands.assemble import Source
from potstill.config.build import build
from potstill.config.schema import EvaluateConfig, TrainConfig
from potstill.data.batch import IGNORE
from potstill.data.manifest import FILE, changed_items
from potstill.data.module import DataModule
from potstill.errors import UserError
from potstill.evaluation.bar import BarConfig
from potstill.evaluation.declared import Example
from potstill.evaluation.evaluate import EvaluationSet
from potstill.tracking.ledger import openings, record_opening

log = logging.getLogger(__name__)

SHOWN = 3  # of the items that differ


def check_runs(runs: dict[str, Path], data: DataModule) -> None:
    """Raises UserError for a run that is not finished, or was trained on another split of the data than this."""
    for key, run in runs.items():
        _refuse_unfinished(run, key)
    for key, run in runs.items():
        _refuse_other_items(run, key, data.manifest)
        _refuse_other_data(run, key, data.fingerprint)


def test_set(source: Source, bar: BarConfig) -> EvaluationSet:
    """Its slices are the data's own and those that the bar declares."""
    data, texts = source.data, source.data.example_text("test")
    values, kinds = data.slice_values("test"), {}
    names = source.label_names or []
    labels = data.examples["test"]["label"][:] if names else [IGNORE] * len(texts)
    examples = [
        Example(text, None if label == IGNORE else names[label]) for text, label in zip(texts, labels, strict=True)
    ]
    for name, node in bar.slices.items():
        key = f"bar.slices.{name}"
        if name in values:
            raise UserError(key, node, "has the name of a slice that the data declares.", "Choose another name.")
        column = build(node, key)(examples)
        values[name], kinds[name] = column.values, (column.kind, column.ordered)
    return EvaluationSet(
        batches=data.test_dataloader(),
        fingerprint=data.fingerprint,
        slice_values=values,
        kinds=kinds,
        scored_bytes=data.scored_bytes("test") if source.task.is_causal else None,
        items=data.item_hashes("test"),
        texts=texts,
        label_names=source.label_names,
        manifest=data.manifest["splits"]["test"]["hash"],
    )


def open_test_set(options: EvaluateConfig, config: TrainConfig, runs: dict[str, Path], test: str) -> dict[str, Any]:
    """Write down that the test set is opened; how often it has been. Warns past the bar's limit.

    Raises UserError where another setting of the same sweep was measured on it, which would be choosing on the test
    set.
    """
    ledger = Path(options.ledger)
    before = openings(ledger, test)
    swept = {name: value for name, value in config.run.swept.items() if name != "seed"}
    others = [entry for entry in before if entry["sweep"] == config.run.sweep and entry["swept"] != swept]
    if config.run.sweep and others:
        problem = (
            f"is another setting of the sweep '{config.run.sweep}' than {others[0]['run']}, which was measured on this"
            " test set before. To choose between the two by it would leave no fair test."
        )
        fix = (
            "Choose by validation (potstill compare), then evaluate the one you chose; seeds may be several. For a"
            " table of all, make them columns of one evaluation: +models.NAME=RUN"
        )
        raise UserError("run", options.run, problem, fix)
    entry = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "test_set": test,
        "run": str(runs["run"]),
        "output": options.output,
        "bar": options.bar.name,
        "sweep": config.run.sweep,
        "swept": swept,
    }
    record_opening(ledger, entry)
    count, limit = len(before) + 1, options.bar.max_openings
    if count > limit:
        text = "This test set was opened %d times (bar.max_openings=%d, %s): its numbers flatter who has looked often."
        log.warning(text, count, limit, ledger)
    return {"count": count, "limit": limit, "ledger": options.ledger}


def _refuse_unfinished(run: Path, key: str) -> None:
    if not (run / "manifest.json").exists() or not (run / "student").is_dir():
        fix = "Let it finish, or give another run's directory."
        raise UserError(key, str(run), "is not a training run that has come to its end.", fix)


def _refuse_other_items(run: Path, key: str, now: dict[str, Any]) -> None:
    """Of runs that kept a manifest of items: the test set is the one that was frozen when they began."""
    if not (run / FILE).is_file():
        return
    lost, gained = changed_items(json.loads((run / FILE).read_text(encoding="utf-8")), now, "test")
    if lost or gained:
        named = ", ".join([*(f"-{item}" for item in lost[:SHOWN]), *(f"+{item}" for item in gained[:SHOWN])])
        problem = (
            f"was frozen with another test set: {len(lost)} of its items are gone and {len(gained)} are new"
            f" ({named}). Its {FILE} says which there were."
        )
        raise UserError(key, str(run), problem, "Give the data back as they were, or train again on these.")


def _refuse_other_data(run: Path, key: str, fingerprint: str) -> None:
    """A model may have been trained on what is test data here, unless its run split the same data the same way."""
    trained_on = json.loads((run / "manifest.json").read_text())["fingerprints"]["data"]
    if trained_on != fingerprint:
        problem = f"was trained on other data, labels or splits ({trained_on[:12]}) than these ({fingerprint[:12]})."
        raise UserError(key, str(run), problem, "Train it again on this data, with the same seed and data options.")
