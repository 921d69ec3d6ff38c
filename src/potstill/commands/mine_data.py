"""What mining reads: a run with its models, what they say of its data, and a pool of inputs without labels."""

# E examples

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray

from potstill.audit.texts import normalise
from potstill.commands.assemble import Source, assemble_source, check_tokenizers
from potstill.commands.evaluate import find_runs
from potstill.commands.frozen import check_runs
from potstill.commands.tested import under_test
from potstill.config.build import build
from potstill.config.rerun import read_config
from potstill.config.schema import DataConfig, TrainConfig
from potstill.data.batch import Batch
from potstill.data.batches import BatchView
from potstill.data.columns import input_columns, slice_column, tidy
from potstill.data.content import content_hash, unit_interval
from potstill.data.generated import GeneratedText
from potstill.data.quiet import quiet
from potstill.data.texts import texts_of
from potstill.errors import UserError, nearest_hint
from potstill.evaluation.predict import ModelUnderTest, predict_all
from potstill.evaluation.scores import NO_ANSWER, Scores
from potstill.models.export import load_exported
from potstill.models.load import load_teacher
from potstill.reporting.progress import tracked

TASK = "text_classification"


@dataclass(frozen=True)
class Asked:
    """E examples of a split: as rows of mined.jsonl, and whether the teacher is right and the student wrong, `[E]`."""

    rows: list[dict[str, Any]]
    failed: NDArray[np.bool_]

    def only(self, chosen: NDArray[np.bool_]) -> Asked:
        return Asked([row for row, keep in zip(self.rows, chosen, strict=True) if keep], self.failed[chosen])


def read_run(run: str, key: str = "run") -> tuple[Path, TrainConfig]:
    """Raises UserError where there is no such training run, or nobody to say what is right in it."""
    path = find_runs(Path(run), None)["run"]
    config = read_config(path, key)
    if config.data.task != TASK:
        problem = f"is a run of data.task={config.data.task}: who is right, and on what text, is known of {TASK}."
        raise UserError(key, run, problem, f"Give a run of data.task={TASK}")
    if config.teacher.members or not config.teacher.path:
        problem = "has several teachers." if config.teacher.members else "has no teacher, so nobody could be right."
        raise UserError(key, run, problem, "Give a run with one: potstill train teacher=pretrained teacher.path=...")
    return path, config


def read_source(config: TrainConfig, runs: dict[str, Path]) -> Source:
    """The data of `config`, on which all of `runs` have come to their end."""
    for key, run in runs.items():
        if not (run / "student").is_dir():
            fix = "Let it finish, or give another run's directory."
            raise UserError(key, str(run), "is not a training run that has come to its end.", fix)
    source = assemble_source(config)
    check_runs({"run": runs["run"]}, source.data)
    return source


def models_of(config: TrainConfig, source: Source, runs: dict[str, Path]) -> dict[str, ModelUnderTest]:
    """The teacher, and the student of each run by its key."""
    check_tokenizers(config, source)
    teacher = load_teacher(config.teacher, source.task, tokenizer=source.tokenizer)
    models = {"teacher": under_test(teacher, config, source, "teacher.path", str(config.teacher.path))}
    for key, run in runs.items():
        student = load_exported(run / "student", source.task)
        models[key] = under_test(student, config, source, key, str(run / "student"))
    return models


def ask(models: dict[str, ModelUnderTest], source: Source, view: BatchView, what: str) -> dict[str, Scores]:
    """What each model says of every example, in their order."""
    return predict_all(models, _batches(view, source.data.batch_size, what), source.task)  # type: ignore[return-value]


def failures_of(
    split: str, scores: dict[str, Scores], texts: list[str], items: list[str], names: list[str], *, trust_teacher: bool
) -> Asked:
    """names: of the labels. trust_teacher: where there is no gold label, the teacher's answer stands for it."""
    teacher, student = scores["teacher"], scores["run"]
    failed = teacher.labelled & teacher.right & ~student.right
    if trust_teacher:
        failed |= ~teacher.labelled & (teacher.top1 != student.top1)
    rows = [
        {
            **{"split": split, "item": items[place], "text": texts[place]},
            "gold": _name(names, int(teacher.label[place] if teacher.labelled[place] else teacher.top1[place])),
            "is_gold": bool(teacher.labelled[place]),
            "student": _name(names, int(student.top1[place])),
            "teacher_confidence": round(float(teacher.confidence[place]), 6),
            "student_confidence": round(float(student.confidence[place]), 6),
        }
        for place in range(len(texts))
    ]
    return Asked(rows, failed)


def is_held_back(texts: list[str], share: float) -> NDArray[np.bool_]:
    """Which validation items are not mined, `[E]`: equal texts alike, and the same in every round."""
    return np.array([unit_interval(content_hash(normalise(text)), "held back") < share for text in texts], dtype=bool)


@dataclass(frozen=True)
class Pool:
    """rows: under the source's own names, without labels. table: encoded, for models. texts, items: `[E]`.
    licence_records: of teachers who wrote the texts."""

    rows: list[dict[str, Any]]
    table: Dataset
    texts: list[str]
    items: list[str]
    licence_records: list[dict[str, Any]] = field(default_factory=list)

    def only(self, places: NDArray[np.int64]) -> Pool:
        chosen = places.tolist()
        parts = ([each[place] for place in chosen] for each in (self.rows, self.texts, self.items))
        rows, texts, items = parts
        return replace(self, rows=rows, table=self.table.select(chosen), texts=texts, items=items)


def read_pool(node: dict[str, Any], data: DataConfig, source: Source) -> Pool:
    """Of its columns those that the models read, and those of the data's slices that it has. Labels are not read."""
    splits: DatasetDict = build(node, "pool")
    table = splits["train"]
    if not len(table):
        raise UserError("pool", node, "is empty.", "Give inputs that a teacher could be asked about.")
    columns = input_columns(data)
    for name, column in columns.items():
        if column not in table.column_names:
            problem = f"has no column '{column}', which data.columns.{name} names."
            raise UserError("pool", table.column_names, problem, nearest_hint(column, table.column_names))
    slices = [name for name in data.slices if name in table.column_names]
    unlabelled = replace(data, columns=replace(data.columns, label=None, score=None), slices=slices)
    with quiet():
        neat = tidy(table, unlabelled, "pool", None)
        encoded = source.data.encoder.encode(neat)
    kept: Any = table.select_columns([*columns.values(), *(name for name in slices if name not in columns.values())])
    records = splits.licence_records if isinstance(splits, GeneratedText) else []
    return Pool(list(kept), encoded, list(texts_of(neat).prompt), [each[:16] for each in neat["content"][:]], records)


def pool_view(pool: Pool, source: Source) -> BatchView:
    return BatchView(pool.table, source.data.encoder, None)


def slices_of(source: Source, split: str) -> dict[str, list[str]]:
    return {name: source.data.examples[split][slice_column(name)][:] for name in source.data.slices}


def _batches(view: BatchView, size: int, what: str) -> Iterator[Batch]:
    for start in tracked(range(0, len(view.table), size), what):
        yield view[list(range(start, min(start + size, len(view.table))))]


def _name(names: list[str], label: int) -> str:
    return "(no answer)" if label == NO_ANSWER else names[label]
