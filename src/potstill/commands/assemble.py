"""Config in, parts out. What is cheap to check comes first, so that bad input costs no loading."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from potstill.config.build import build
from potstill.config.schema import HardwareConfig, TrainConfig
from potstill.data.build import build_data, own_tokenizer
from potstill.data.labels import label_names
from potstill.data.microbatch import cut
from potstill.data.module import DataModule
from potstill.errors import UserError
from potstill.models.labels import label_order
from potstill.models.load import load_student, load_teacher
from potstill.models.taps import check_taps
from potstill.models.task import Task, find_task
from potstill.models.tokenizers import check_same_tokenizer, load_tokenizer
from potstill.module import DistillationModule
from potstill.objective import Objective
from potstill.optimisation import schedule_of
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import SignalSource
from potstill.signals.remembered import RememberedTeacher

SAMPLE_EXAMPLES = 4  # enough for every term to see more than one row


@dataclass
class Source:
    """Data as a model will see it."""

    task: Task
    data: DataModule
    label_names: list[str] | None
    tokenizer: PreTrainedTokenizerBase | None


@dataclass
class Models:
    student: PreTrainedModel
    teacher: SignalSource | None


def assemble_objective(config: TrainConfig) -> Objective:
    """The terms of the config. UserError where one of them needs a teacher and there is none."""
    objective = Objective({name: build(node, f"loss.term.{name}") for name, node in config.loss.term.items()})
    if objective.needs_teacher and not _has_teacher(config):
        names = ", ".join(config.loss.term)
        problem = f"is no teacher, but the loss ({names}) needs its signal."
        fix = "Set teacher=pretrained teacher.path=DIRECTORY, or train without one: loss=ce"
        raise UserError("teacher.path", config.teacher.path, problem, fix)
    return objective


def assemble_source(config: TrainConfig, *, labelled_only: bool = False) -> Source:
    """Read, split, label and encode the data."""
    task = find_task(config.data.task)
    splits = build(config.data.source, "data.source")
    names = label_names(config.data, splits)
    tokenizer = _tokenizer(config, own_tokenizer(splits)) if task.is_text else None
    data = build_data(
        config.data,
        splits,
        tokenizer=tokenizer,
        label_names=names,
        labelled_only=labelled_only,
        seed=config.seed,
        num_workers=config.hardware.num_workers,
        limit_batches=config.limit_batches,
    )
    return Source(task, data, names, tokenizer)


def assemble_models(config: TrainConfig, source: Source, objective: Objective) -> Models:
    """Student and, where it is needed, teacher; both checked against the data, each other and the taps."""
    teacher = None
    if objective.needs_teacher or config.student.init == "teacher_layers":
        teacher = load_teacher(config.teacher, source.task, label_names=source.label_names, tokenizer=source.tokenizer)
    student = load_student(
        config.student, source.task, label_names=source.label_names, tokenizer=source.tokenizer, teacher=teacher
    )
    _check_taps(objective, student, teacher)
    signal = signal_source(config, source, teacher) if teacher is not None and objective.needs_teacher else None
    return Models(student, signal)


def signal_source(config: TrainConfig, source: Source, teacher: PreTrainedModel) -> SignalSource:
    """The teacher as the module sees it, its columns in the order of the data's labels."""
    check_tokenizers(config, source)
    order = None
    if source.label_names is not None:
        order = label_order(teacher.config, source.label_names, "teacher.path")
    live = LiveTeacher(teacher, source.task, order)
    return RememberedTeacher(live) if config.teacher.remember else live


def check_tokenizers(config: TrainConfig, source: Source) -> None:
    """UserError where the teacher would read other ids than the data was encoded with."""
    if source.tokenizer is not None and config.teacher.path:
        check_same_tokenizer(source.tokenizer, teacher_tokenizer(config))


def teacher_tokenizer(config: TrainConfig) -> PreTrainedTokenizerBase:
    teacher = config.teacher
    assert teacher.path is not None
    return load_tokenizer(teacher.path, teacher.revision, teacher.trust_remote_code)


def _tokenizer(config: TrainConfig, own: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
    """The student's own by name, by its weights, the data's, or the teacher's: the first there is."""
    student = config.student
    if student.tokenizer:
        return load_tokenizer(student.tokenizer, None, student.trust_remote_code)
    if student.path:
        return load_tokenizer(student.path, student.revision, student.trust_remote_code)
    if own is not None:
        return own
    if config.teacher.path:
        return teacher_tokenizer(config)
    problem = "text needs a tokenizer, and neither student, data nor teacher brings one."
    raise UserError("student.tokenizer", None, problem, "Set student.tokenizer=NAME_OR_DIRECTORY")


def _check_taps(objective: Objective, student: PreTrainedModel, teacher: PreTrainedModel | None) -> None:
    for name, term in objective.terms.items():
        check_taps(student, term.student_taps, f"loss.term.{name}.student_tap", who="student")  # type: ignore[arg-type]
        if teacher is not None:
            check_taps(teacher, term.teacher_taps, f"loss.term.{name}.teacher_tap", who="teacher")  # type: ignore[arg-type]


def _has_teacher(config: TrainConfig) -> bool:
    return bool(config.teacher.path or config.teacher.config)


def refuse_batch_norm(student: nn.Module, hardware: HardwareConfig) -> None:
    """Statistics of a micro-batch are not those of the batch: with them, gradients would depend on how it is cut."""
    for option in ("micro_batch_examples", "micro_batch_tokens"):
        limit = getattr(hardware, option)
        for path, layer in student.named_modules():
            if limit and layer.training and isinstance(layer, _BatchNorm):
                problem = f"would change the gradient: the student's '{path}' normalises over what it sees at once."
                fix = f"Set hardware.{option}=null, or choose a student without BatchNorm, such as vit_digits_tiny."
                raise UserError(f"hardware.{option}", limit, problem, fix)


def make_module(config: TrainConfig, source: Source, models: Models, objective: Objective) -> DistillationModule:
    """The module, its terms prepared on a few examples."""
    refuse_batch_norm(models.student, config.hardware)
    optimizer = dict(config.optim.optimizer)
    weight_decay = optimizer.pop("weight_decay", 0.0)
    if config.hardware.compile:
        models.student.compile()
    module = DistillationModule(
        models.student,
        objective,
        source.task,
        models.teacher,
        make_optimizer=lambda groups: build(optimizer, "optim.optimizer", params=groups),
        make_schedule=functools.partial(
            schedule_of,
            name=config.optim.schedule,
            warmup_fraction=config.optim.warmup_fraction,
            num_steps=config.optim.max_steps or (config.optim.max_epochs or 1) * source.data.batches_per_epoch,
        ),
        weight_decay=weight_decay,
        clip_norm=config.optim.clip_norm,
        max_examples=config.hardware.micro_batch_examples,
        max_tokens=config.hardware.micro_batch_tokens,
    )
    module.prepare(cut(next(iter(source.data.train_dataloader())), SAMPLE_EXAMPLES, None)[0])
    return module
