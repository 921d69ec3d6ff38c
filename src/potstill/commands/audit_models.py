"""What a run's models say of every example of the data under audit."""

# N examples, C classes

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from potstill.commands.assemble import assemble_source, check_tokenizers, live_teacher
from potstill.commands.audit_data import Said
from potstill.commands.evaluate import find_runs
from potstill.commands.shared import Source
from potstill.config.rerun import read_config
from potstill.config.schema import DataConfig, TrainConfig
from potstill.errors import UserError
from potstill.losses.precision import upcast
from potstill.models.export import load_exported
from potstill.models.load import load_teacher
from potstill.reporting.progress import tracked
from potstill.signals.live import LiveTeacher

CLASSIFIERS = ("text_classification", "image_classification")


@dataclass(frozen=True)
class RunUnderAudit:
    """config: of the student's training. students: the training runs of student and baseline."""

    config: TrainConfig
    students: dict[str, Path]

    @property
    def is_classifier(self) -> bool:
        return self.config.data.task in CLASSIFIERS


def run_under_audit(run: Path) -> RunUnderAudit:
    """Raises UserError where there is no such run, or its students are not finished."""
    runs = find_runs(run, None)
    config = read_config(runs["run"])
    students = {"student" if key == "run" else key: path for key, path in runs.items()}
    for path in students.values():
        if not (path / "student").is_dir():
            fix = "Let it finish, or give another run's directory."
            raise UserError("run", str(path), "is not a training run that has come to its end.", fix)
    return RunUnderAudit(config, students)


def predictions(run: RunUnderAudit, data: DataConfig) -> tuple[dict[str, Dataset], list[str] | None, Said]:
    """The data under audit, the names of its labels, and what each model says of it.

    The teacher is asked about all splits, students about test alone. Several teachers are left out: none of them is
    the teacher.
    """
    config = replace(run.config, data=replace(data, labels_per_class=None), limit_batches=None)
    source = assemble_source(config)
    check_tokenizers(config, source)
    found: Said = {}
    if config.teacher.path:
        model = load_teacher(config.teacher, source.task, tokenizer=source.tokenizer)
        teacher = live_teacher(model, source, "teacher")
        found["teacher"] = {split: _probabilities(teacher, source, split, "teacher") for split in source.data.examples}
    for name, path in run.students.items():
        student = live_teacher(load_exported(path / "student", source.task), source, "run")
        found[name] = {"test": _probabilities(student, source, "test", name)}
    return source.data.examples, source.label_names, found


def _probabilities(model: LiveTeacher, source: Source, split: str, who: str) -> NDArray:
    view, size = source.data.view(split), source.data.batch_size
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    model.to(device)
    rows = []
    for start in tracked(range(0, len(view.table), size), f"{who} on {split}"):
        batch = view[list(range(start, min(start + size, len(view.table))))].to(device)
        logits_NC = model.signal(batch, source.task.output).logits
        assert logits_NC is not None
        rows.append(upcast(logits_NC).softmax(dim=-1).cpu().numpy())
    return np.concatenate(rows)
