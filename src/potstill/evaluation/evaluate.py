"""The structure behind `evaluation.json`: every model on one evaluation set, overall and per slice, and the verdict."""

# E examples

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.data.batch import Batch
from potstill.evaluation.answers import Answers, Generated, with_answers
from potstill.evaluation.bar import BarConfig
from potstill.evaluation.between_seeds import between_seeds
from potstill.evaluation.cases import Items, confusions, examples, lines
from potstill.evaluation.compare import Compared, difference
from potstill.evaluation.cost import count_flops, model_bytes, num_parameters, single_examples
from potstill.evaluation.gates import against_baseline, gates
from potstill.evaluation.measure import group, main_metric
from potstill.evaluation.metrics import LOWER_IS_BETTER
from potstill.evaluation.predict import ModelUnderTest, predict_all
from potstill.evaluation.ranking import slices_worst_first
from potstill.evaluation.slices import Slice, declared, slice_masks
from potstill.evaluation.verdict import verdict
from potstill.models.task import Task

SCHEMA_VERSION = 2
PAIRS = (("student", "teacher"), ("student", "baseline"), ("quantised", "student"), ("student", "majority"))


@dataclass(frozen=True)
class EvaluationSet:
    """One split of E examples, as `DataModule` gives it.

    batches: read once, in evaluation order (of embeddings once per model); so a data loader or a list, not a generator.
    slice_values: per slice column its value for each example, `[E]`. kinds: of slice columns that were not read from
        the data, what made them; may name values that no example has.
    scored_bytes: causal language models: UTF-8 bytes of each example's scored text, `[E]`.
    items, texts: hash and text of each example, `[E]`; empty where nobody will read them.
    """

    batches: Iterable[Batch]
    fingerprint: str
    slice_values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scored_bytes: Sequence[int] | None = None
    split: str = "test"
    items: Sequence[str] = ()
    texts: Sequence[str] = ()
    label_names: Sequence[str] | None = None
    manifest: str | None = None
    kinds: Mapping[str, tuple[str, Sequence[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """report: what `evaluation.json` holds, without the block `measured`. items: the lines of `items.jsonl`."""

    report: dict[str, Any]
    items: list[dict[str, Any]]
    scores: Mapping[str, Compared]


def evaluate(
    models: Mapping[str, ModelUnderTest], data: EvaluationSet, task: Task, bar: BarConfig | None = None
) -> dict[str, Any]:
    """`judge`, without the items."""
    return judge(models, data, task, bar or BarConfig()).report


def judge(
    models: Mapping[str, ModelUnderTest],
    data: EvaluationSet,
    task: Task,
    bar: BarConfig,
    *,
    seeds: Sequence[dict[str, Any]] = (),
    seed: int = 0,
    blocks: Callable[[Mapping[str, Compared]], dict[str, Any]] | None = None,
    generated: Generated | None = None,
) -> Judged:
    """Measure models (`teacher`, `student`, `baseline` have a part to play, any may be missing) and say what follows.

    seeds: runs that differ from this one, of `seed`, in their seed alone: path, seed, and the main metric of student
    and baseline. blocks: asked once, of the scores, for `contamination`, `coverage`, `teacher_quality`, `found_slices`.
    generated: what they wrote to the prompts of examples, where they did.
    The report has JSON types only, keys in a fixed order, None for what cannot be measured (no gold label, no teacher,
    an empty slice). Raises ValueError where slice values or bytes are not one per example.
    """
    scores = predict_all(models, data.batches, task)
    _check_aligned(scores, data)
    said = _said(scores, generated, task)
    metric, all_slices = said.metric, declared(data.slice_values, data.kinds)
    masks, items = slice_masks(all_slices, data.slice_values), _items(data, scores)
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "task": task.name,
        "metric": metric,
        "higher_is_better": metric not in LOWER_IS_BETTER,
        "verdict": None,
        "gates": [],
        "bar": asdict(bar),
        "data": _about(data, said),
        "generation": dict(generated.about) if generated else None,
        "slices": _slices(all_slices, masks, said, bar),
        "models": _models(models, said, masks, data, task, bar),
        "differences": _differences(said.ranked, metric, masks),
        "found_slices": None,
        "confusions": confusions(scores, items),
        "examples": examples(scores, items),
        "seeds": None,
        "contamination": None,
        "coverage": None,
        "teacher_quality": None,
    }
    report |= blocks(scores) if blocks else {}
    report["seeds"] = between_seeds([_this(report, seed), *seeds], report)
    for model in report["models"].values():
        model["worst_slice"] = _worst_slice(report, model)
    report["gates"] = gates(report, bar)
    report["verdict"] = verdict(report["gates"], against_baseline(report))
    return Judged(_without_nan(report), _without_nan(list(lines(scores, items, metric, said.answers))), scores)


@dataclass(frozen=True)
class _Said:
    """What models said of one set. ranked: what `metric`, the main one, is taken of: scores, or those of answers."""

    scores: Mapping[str, Compared]
    answers: Mapping[str, Answers]
    ranked: Mapping[str, Compared]
    metric: str

    @property
    def of_answers(self) -> str | None:
        return self.metric if self.ranked is not self.scores else None

    def on(self, name: str, examples_E: NDArray[np.bool_]) -> tuple[Compared | None, Answers | None]:
        """What a model said of the chosen examples; None for what it did not say."""
        scores, answers = self.scores.get(name), self.answers.get(name)
        chosen = None if scores is None else scores.where(examples_E[scores.example])
        return chosen, None if answers is None else answers.where(examples_E)

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Examples that the main metric can be taken of."""
        labelled_E = np.zeros(_num_examples(self.scores), dtype=bool)
        for first in list(self.ranked.values())[:1]:
            labelled_E[first.example[first.labelled]] = True
        return labelled_E


def _said(scores: Mapping[str, Compared], generated: Generated | None, task: Task) -> _Said:
    if generated is None:
        return _Said(scores, {}, scores, main_metric(task, scores.values()))
    if generated.metric is None:
        return _Said(scores, generated.answers, scores, main_metric(task, scores.values()))
    ranked = {name: answers.scores for name, answers in generated.answers.items()}
    return _Said(scores, generated.answers, ranked, generated.metric)


def _this(report: dict[str, Any], seed: int) -> dict[str, Any]:
    models, metric = report["models"], report["metric"]
    values = {name: models[name]["overall"][metric] if name in models else None for name in ("student", "baseline")}
    return {"path": models["student"]["path"] if "student" in models else None, "seed": seed, **values}


def _about(data: EvaluationSet, said: _Said) -> dict[str, Any]:
    return {
        "fingerprint": data.fingerprint,
        "split": data.split,
        "n": _num_examples(said.scores),
        "num_labelled": int(said.labelled.sum()),
        "manifest": data.manifest,
        "label_names": None if data.label_names is None else list(data.label_names),
    }


def _items(data: EvaluationSet, scores: Mapping[str, Compared]) -> Items:
    num_examples = _num_examples(scores)
    hashes, texts = data.items or [""] * num_examples, data.texts or [""] * num_examples
    return Items(hashes, texts, data.label_names, data.slice_values)


def _slices(
    all_slices: Mapping[str, Slice], masks: Mapping[str, NDArray], said: _Said, bar: BarConfig
) -> dict[str, Any]:
    counts = {name: int((mask_E & said.labelled).sum()) for name, mask_E in masks.items()}
    return {
        name: {**asdict(each), "n": int(masks[name].sum()), "is_too_small": counts[name] < bar.min_slice_items}
        for name, each in all_slices.items()
    }


def _models(
    models: Mapping[str, ModelUnderTest],
    said: _Said,
    masks: Mapping[str, NDArray[np.bool_]],
    data: EvaluationSet,
    task: Task,
    bar: BarConfig,
) -> dict[str, dict[str, Any]]:
    everything = np.ones(_num_examples(said.scores), dtype=bool)
    sample = single_examples(data.batches, 1)
    if not sample and len(everything):
        raise ValueError(f"batches, read again, has 0 values for {len(everything)} examples")
    return {
        name: {
            "path": tested.path,
            "overall": _group(name, said, everything, data, task, bar, in_full=True),
            "slices": {
                each: _group(name, said, mask_E, data, task, bar, in_full=False) for each, mask_E in masks.items()
            },
            "worst_slice": None,
            "size": {
                "parameters": num_parameters(tested.model),
                "model_bytes": model_bytes(tested.model),
                "flops": count_flops(tested, sample, task),
            },
        }
        for name, tested in models.items()
    }


def _group(
    name: str,
    said: _Said,
    examples_E: NDArray[np.bool_],
    data: EvaluationSet,
    task: Task,
    bar: BarConfig,
    *,
    in_full: bool,
) -> dict[str, Any]:
    """One model's numbers over the rows of the chosen examples."""
    num_bytes = 0 if data.scored_bytes is None else int(np.asarray(data.scored_bytes)[examples_E].sum())
    scores, answers = said.on(name, examples_E)
    teacher, teacher_answers = (None, None) if name == "teacher" else said.on("teacher", examples_E)
    assert scores is not None
    found = group(scores, teacher, task, num_bytes, min_items=bar.min_slice_items, in_full=in_full)
    if not said.answers:
        return found
    return with_answers(found, answers, teacher_answers, said.of_answers, bar.min_slice_items)


def _differences(
    scores: Mapping[str, Compared], metric: str, masks: Mapping[str, NDArray[np.bool_]]
) -> dict[str, dict[str, Any]]:
    pairs = [(first, second) for first, second in PAIRS if {first, second} <= scores.keys()]
    return {f"{first}-{second}": difference(scores[first], scores[second], metric, masks) for first, second in pairs}


def _worst_slice(report: dict[str, Any], model: dict[str, Any]) -> str | None:
    names = slices_worst_first({**report, "models": {"it": model}}, "it")
    metric = report["metric"]
    usable = [
        name
        for name in names
        if not model["slices"][name]["is_too_small"] and math.isfinite(model["slices"][name][metric])
    ]
    return usable[0] if usable else None


def _num_examples(scores: Mapping[str, Compared]) -> int:
    return next((each.num_examples for each in scores.values()), 0)


def _check_aligned(scores: Mapping[str, Compared], data: EvaluationSet) -> None:
    """Every model saw the same examples, and every column of the set has one value for each."""
    num_examples = _num_examples(scores)
    lengths = {name: each.num_examples for name, each in scores.items()}
    lengths |= {name: len(values) for name, values in data.slice_values.items()}
    lengths |= {name: len(values) for name, values in (("items", data.items), ("texts", data.texts)) if values}
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
