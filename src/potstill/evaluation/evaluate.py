"""The structure behind `evaluation.json`: every model on one evaluation set, overall and per slice, and its cost."""

# E examples

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from potstill.data.batch import Batch
from potstill.evaluation.compare import Compared, difference
from potstill.evaluation.cost import measure_cost, single_examples
from potstill.evaluation.measure import main_metric, measure, measure_against
from potstill.evaluation.metrics import LOWER_IS_BETTER
from potstill.evaluation.predict import predict
from potstill.evaluation.slices import slice_masks
from potstill.models.task import Task
from potstill.signals.protocol import SignalSource

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelUnderTest:
    """A model, where it came from, and its column for each of the data's labels (None where they are in order).

    source: what answers in the place of `model`, where that is several; columns are in order.
    """

    model: nn.Module
    path: str | None = None
    label_order: Sequence[int] | None = None
    source: SignalSource | None = None


@dataclass(frozen=True)
class EvaluationSet:
    """One split of E examples, as `DataModule` gives it.

    batches: read once per model, in evaluation order; so a data loader or a list, not a generator.
    slice_values: per slice column its value for each example, `[E]`.
    scored_bytes: causal language models: UTF-8 bytes of each example's scored text, `[E]`.
    """

    batches: Iterable[Batch]
    fingerprint: str
    slice_values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scored_bytes: Sequence[int] | None = None
    split: str = "test"


def evaluate(models: Mapping[str, ModelUnderTest], data: EvaluationSet, task: Task) -> dict[str, Any]:
    """Measure models named `teacher`, `student`, `baseline` (any of them may be missing) on one evaluation set.

    Returns what `evaluation.json` holds: JSON types only, keys in a fixed order, None for what cannot be measured (no
    gold label, no teacher, an empty slice). A model's `n` counts rows (the tokens scored, of a language model), the
    data's `n` counts examples. Raises ValueError where slice values or bytes are not one per example.
    """
    scores = {
        name: predict(model.model, data.batches, task, model.label_order, model.source)
        for name, model in models.items()
    }
    _check_aligned(scores, data)
    metric = main_metric(task, scores.values())
    reports = _reports(scores, data, task, metric)
    examples = single_examples(data.batches)
    for name, model in models.items():
        reports[name] |= {"cost": measure_cost(model.model, examples, task, model.source), "path": model.path}
    return _without_nan(
        {
            "schema_version": SCHEMA_VERSION,
            "task": task.name,
            "metric": metric,
            "higher_is_better": metric not in LOWER_IS_BETTER,
            "data": {"fingerprint": data.fingerprint, "split": data.split, "n": _num_examples(scores)},
            "models": reports,
            "differences": _differences(scores, metric),
        }
    )


def _reports(scores: Mapping[str, Compared], data: EvaluationSet, task: Task, metric: str) -> dict[str, dict[str, Any]]:
    """`{model: {"overall": {...}, "slices": {...}}}`."""
    masks = slice_masks(data.slice_values)
    everything = np.ones(_num_examples(scores), dtype=bool)
    overall = _on_examples(scores, everything, data, task, metric)
    by_slice = {name: _on_examples(scores, mask, data, task, metric) for name, mask in masks.items()}
    return {
        model: {"overall": overall[model], "slices": {name: group[model] for name, group in by_slice.items()}}
        for model in scores
    }


def _on_examples(
    scores: Mapping[str, Compared], examples_E: NDArray[np.bool_], data: EvaluationSet, task: Task, metric: str
) -> dict[str, dict[str, Any]]:
    """Every model's metrics over the rows of the chosen examples."""
    chosen = {name: each.where(examples_E[each.example]) for name, each in scores.items()}
    num_bytes = 0 if data.scored_bytes is None else int(np.asarray(data.scored_bytes)[examples_E].sum())
    measured = {name: measure(each, task, num_bytes) for name, each in chosen.items()}
    teacher = (chosen["teacher"], measured["teacher"]) if "teacher" in scores else None
    for name in measured:
        if name != "teacher":
            measured[name] |= measure_against(teacher, chosen[name], measured[name], metric)
    return measured


def _differences(scores: Mapping[str, Compared], metric: str) -> dict[str, dict[str, Any]]:
    if not {"student", "baseline"} <= scores.keys():
        return {}
    return {"student-baseline": difference(scores["student"], scores["baseline"], metric)}


def _num_examples(scores: Mapping[str, Compared]) -> int:
    return next((each.num_examples for each in scores.values()), 0)


def _check_aligned(scores: Mapping[str, Compared], data: EvaluationSet) -> None:
    """Every model saw the same examples, and every column of the set has one value for each."""
    num_examples = _num_examples(scores)
    lengths = {name: each.num_examples for name, each in scores.items()}
    lengths |= {name: len(values) for name, values in data.slice_values.items()}
    if data.scored_bytes is not None:
        lengths["scored_bytes"] = len(data.scored_bytes)
    for name, length in lengths.items():
        if length != num_examples:
            raise ValueError(f"{name} has {length} values for {num_examples} examples")


def _without_nan(value: Any) -> Any:
    """JSON has no word for `nan` and `inf`: both become None."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
