"""The models of an evaluation: teacher, student, baseline, the student in 8 bits, the most frequent label, others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from potstill.commands.assemble import Source, check_same, check_tokenizers
from potstill.commands.several import several
from potstill.config.schema import EvaluateConfig, TeacherConfig, TrainConfig
from potstill.errors import UserError
from potstill.evaluation.predict import ModelUnderTest
from potstill.evaluation.prior import majority
from potstill.models.export import load_exported
from potstill.models.labels import label_order
from potstill.models.load import load_teacher
from potstill.models.quantise import quantised
from potstill.signals.live import LiveTeacher

RESERVED = ("teacher", "student", "baseline", "quantised", "majority")


def models_under_test(
    config: TrainConfig, runs: dict[str, Path], source: Source, options: EvaluateConfig
) -> dict[str, ModelUnderTest]:
    """In the order of the columns. Everything is loaded, and refused, before the test set is opened."""
    models = _teachers(config, source, options.teacher_path)
    for key, run in runs.items():
        student = load_exported(run / "student", source.task)
        models["student" if key == "run" else key] = under_test(student, config, source, key, str(run / "student"))
    if options.quantised:
        student = models["student"]
        model = quantised(student.model)
        models["quantised"] = ModelUnderTest(model, student.path, student.label_order)
    if source.task.name.endswith("classification") and source.label_names:
        labels = np.asarray(source.data.examples["train"]["label"][:]).tolist()
        if (prior := majority(labels, len(source.label_names), source.task)) is not None:
            models["majority"] = prior
    return models | {name: _other(name, path, config, source) for name, path in options.models.items()}


def _other(name: str, path: str, config: TrainConfig, source: Source) -> ModelUnderTest:
    """A model that others made, or another run's: on the same items, with the student's tokenizer."""
    key = f"models.{name}"
    if name in RESERVED:
        raise UserError(key, path, "has the name of a column there is anyway.", f"Choose one besides {RESERVED}.")
    place = str(Path(path, "student")) if Path(path, "student").is_dir() else path
    options = TeacherConfig(path=place)
    if source.tokenizer is not None:
        check_same(source.tokenizer, options)
    model = load_teacher(options, source.task, tokenizer=source.tokenizer, who=key)
    return under_test(model, config, source, key, place)


def _teachers(config: TrainConfig, source: Source, path: str | None) -> dict[str, ModelUnderTest]:
    """The teacher. Of several, what they say together, `teacher`, and each alone, `teacher/<name>`.

    path: where the run has none, because it was trained on labels or on a teacher's text.
    """
    if path is not None:
        if config.teacher.models:
            problem = "is a second teacher: the run was trained with one, which is evaluated anyway."
            raise UserError("teacher_path", path, problem, f"Leave it out, or name it: +models.other={path}")
        if source.tokenizer is not None:
            check_same(source.tokenizer, TeacherConfig(path=path))
        model = load_teacher(TeacherConfig(path=path), source.task, tokenizer=source.tokenizer, who="teacher_path")
        return {"teacher": under_test(model, config, source, "teacher_path", path)}
    check_tokenizers(config, source)
    tested = {}
    for key, options in config.teacher.models.items():
        if options.path:
            model = load_teacher(options, source.task, tokenizer=source.tokenizer, who=key)
            tested[key] = under_test(model, config, source, f"{key}.path", options.path)
    if not config.teacher.members:
        return tested
    sources = {key: LiveTeacher(each.model, source.task, each.label_order) for key, each in tested.items()}  # type: ignore[arg-type]
    # of losses that are averaged, the mean of the distributions is what a student of them all tends to
    combine = "probabilities" if config.teacher.combine == "losses" else config.teacher.combine
    together = several(config, source, sources, split="test", combine=combine)
    alone = {f"teacher/{key.rpartition('.')[2]}": each for key, each in tested.items()}
    return {"teacher": ModelUnderTest(together.model, source=together), **alone}


def under_test(model: PreTrainedModel, config: TrainConfig, source: Source, key: str, path: str) -> ModelUnderTest:
    """The model where the student was trained, its columns matched to the data's labels."""
    order = None if source.label_names is None else label_order(model.config, source.label_names, key)
    accelerator = torch.accelerator.current_accelerator() if config.hardware.accelerator != "cpu" else None
    return ModelUnderTest(model.to(accelerator or torch.device("cpu")), path, order)  # type: ignore[arg-type]
