"""Values and combinations that types cannot refuse, checked before anything is loaded."""

from __future__ import annotations

from typing import Any

from potstill.config.schema import TrainConfig
from potstill.errors import UserError, nearest_hint

TASKS = ("text_classification", "image_classification", "causal_lm")

CHOICES = {
    "data.task": TASKS,
    "student.init": ("random", "pretrained", "teacher_layers"),
    "student.dtype": ("float32", "bfloat16", "float16"),
    "teacher.dtype": ("float32", "bfloat16", "float16"),
    "optim.schedule": ("constant", "linear", "cosine"),
}

POSITIVE = (
    "data.labels_per_class",
    "data.batch_size",
    "data.max_length",
    "optim.max_steps",
    "optim.max_epochs",
    "optim.clip_norm",
    "hardware.micro_batch_examples",
    "hardware.micro_batch_tokens",
    "validate_every",
    "log_every",
    "limit_batches",
)


def validate(config: TrainConfig) -> None:
    """Raises UserError for the first thing that could not work, or would work in silence on something else."""
    for key, choices in CHOICES.items():
        _one_of(key, _value(config, key), choices)
    for key in POSITIVE:
        _positive(key, _value(config, key))
    _fraction("optim.warmup_fraction", config.optim.warmup_fraction)
    _duration(config)
    _terms(config)
    _student(config)
    _teacher(config)


def _value(config: TrainConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(key, value, "is not one of the choices.", nearest_hint(value, choices))


def _positive(key: str, value: float | None) -> None:
    if value is not None and value <= 0:
        raise UserError(key, value, "must be greater than zero.", f"Give a positive number: {key}=1")


def _fraction(key: str, value: float) -> None:
    if not 0 <= value < 1:
        raise UserError(key, value, "must lie in [0, 1).", f"For a tenth: {key}=0.1")


def _duration(config: TrainConfig) -> None:
    steps, epochs = config.optim.max_steps, config.optim.max_epochs
    if (steps is None) == (epochs is None):
        problem = f"exactly one of optim.max_steps and optim.max_epochs says when to stop (max_epochs={epochs})."
        raise UserError("optim.max_steps", steps, problem, "For steps: optim.max_steps=1000 optim.max_epochs=null")


def _terms(config: TrainConfig) -> None:
    if not config.loss.term:
        raise UserError("loss.term", "{}", "has no term, so there is nothing to train on.", "For example: loss=kd")
    for name, term in config.loss.term.items():
        if not isinstance(term, dict) or not term.get("_target_"):
            problem = "is a term without a _target_: an override of a term that this loss does not have."
            fix = f"Choose the term with it, 'loss/term=[ce,{name}]', or leave the override out."
            raise UserError(f"loss.term.{name}", term, problem, fix)


def _student(config: TrainConfig) -> None:
    student, teacher = config.student, config.teacher
    if student.init == "teacher_layers" and not teacher.path:
        raise UserError("student.init", student.init, "needs a teacher to copy from.", "Set teacher.path=...")
    if student.init == "pretrained" and not student.path:
        raise UserError("student.init", student.init, "needs weights to start from.", "Set student.path=...")
    if student.init == "random" and not student.path and "model_type" not in student.config:
        problem = "names no architecture: student.path is null and student.config has no model_type."
        raise UserError("student.config", student.config, problem, "For example: +student.config.model_type=bert")


def _teacher(config: TrainConfig) -> None:
    teacher = config.teacher
    if teacher.remember and config.data.task == "causal_lm":
        problem = (
            "keeps every example's logits in memory; for a language model that is one row of the vocabulary a token."
        )
        raise UserError("teacher.remember", True, problem, "Set teacher.remember=false")
