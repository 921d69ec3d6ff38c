"""Values and combinations that types cannot refuse, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from potstill.config.build import check_arguments
from potstill.config.cache import CACHE_CHOICES, CACHE_POSITIVE, validate_cache
from potstill.config.schema import (
    NO_PACKING_WITH,
    DataConfig,
    MemberConfig,
    ModelConfig,
    TeacherConfig,
    TrainConfig,
)
from potstill.errors import UserError, nearest_hint

TASKS = ("text_classification", "image_classification", "causal_lm", "embedding")
COPIES = ("exact", "near")
POOLINGS = ("cls", "mean", "last")

DTYPES = ("float32", "bfloat16", "float16")

CHOICES = {
    "data.task": TASKS,
    "student.pooling": POOLINGS,
    "teacher.pooling": POOLINGS,
    "student.init": ("random", "pretrained", "teacher_layers"),
    "teacher.dtype": DTYPES,
    **CACHE_CHOICES,
    "teacher.combine": ("probabilities", "losses", "route"),
    "optim.schedule": ("constant", "linear", "cosine"),
    "optim.on_nonfinite": ("stop", "skip"),
    "hardware.strategy": ("auto", "ddp", "fsdp"),
    "hardware.logits_dtype": ("float32", "bfloat16"),
    "hardware.packing": ("auto", "on", "off"),
    "hardware.packed_attention": ("groups", "flex"),
    "hardware.precision": ("32", "bf16-mixed", "bf16-true", "16-mixed"),
}

RETURNED = (
    *("val/loss", "val/accuracy", "val/ndcg_at_10", "val/spearman", "cost/parameters", "cost/model_bytes"),
    *("cost/latency_ms_p50", "cost/latency_ms_p95"),
)

EMBEDDING_ONLY = {  # and the values that mean nothing was asked for
    "data.pair_by_label": False,
    **{f"{who}.pooling": "mean" for who in ("student", "teacher")},
    **{f"{who}.normalise": False for who in ("student", "teacher")},
}

POSITIVE = (
    "data.labels_per_class",
    "data.batch_size",
    "data.max_length",
    "optim.max_steps",
    "optim.max_epochs",
    "optim.clip_norm",
    "optim.max_skipped",
    "hardware.micro_batch_examples",
    "hardware.micro_batch_tokens",
    "validate_every",
    "log_every",
    "limit_batches",
    *CACHE_POSITIVE,
)


def validate(config: TrainConfig) -> None:
    """Raises UserError for the first thing that could not work, or would work in silence on something else."""
    validate_data(config.data)
    for key, choices in CHOICES.items():
        _one_of(key, _value(config, key), choices)
    for key in POSITIVE:
        _positive(key, _value(config, key))
    if config.seed < 0:
        raise UserError("seed", config.seed, "is negative, which generators do not take.", "For example: seed=0")
    for name in config.returns:
        _one_of("returns", name, RETURNED)
    _fraction("optim.warmup_fraction", config.optim.warmup_fraction)
    _duration(config)
    _terms(config)
    _embedding(config)
    _student(config)
    _teacher(config)
    validate_cache(config)
    _hardware(config)
    _term_gradients(config)


def validate_data(data: DataConfig) -> None:
    """What a command that only reads data checks of it, too."""
    _one_of("data.task", data.task, TASKS)
    if data.drop_copies is not None:
        _one_of("data.drop_copies", data.drop_copies, COPIES)
    if data.balance_by is not None:
        _one_of("data.balance_by", data.balance_by, tuple(data.slices))


def _value(config: TrainConfig, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _one_of(key: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise UserError(key, value, "is not one of the choices.", nearest_hint(str(value), map(str, choices)))


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


def _embedding(config: TrainConfig) -> None:
    """Options of sentence encoders, which would have no effect on any other task."""
    data = config.data
    for key, without in EMBEDDING_ONLY.items():
        value = _value(config, key)
        if value != without and data.task != "embedding":
            raise UserError(key, value, f"has no effect with data.task={data.task}.", f"Leave it out: {key}={without}")
    for key in ("data.columns.weight", "data.balance_by"):
        if (value := _value(config, key)) and data.task == "embedding":
            problem = "has no effect with data.task=embedding, whose losses compare texts with each other."
            raise UserError(key, value, problem, f"Leave it out: {key}=null")
    if data.columns.logprobs and data.task != "causal_lm":
        problem = f"has no effect with data.task={data.task}: it is of the tokens of a text."
        raise UserError("data.columns.logprobs", data.columns.logprobs, problem, "Set data.columns.logprobs=null")
    if data.pair_by_label and not (data.columns.text and data.columns.label):
        problem = "pairs single texts by their label, so it reads a column of each."
        raise UserError("data.pair_by_label", True, problem, "Set data.columns.text=COLUMN data.columns.label=COLUMN")


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
    if teacher.members:
        _members(config)
    elif teacher.route_by or teacher.combine != TeacherConfig.combine:
        name = "route_by" if teacher.route_by else "combine"
        problem = "has no effect on one teacher."
        raise UserError(f"teacher.{name}", getattr(teacher, name), problem, "Leave it out, or set teacher=several.")


def _members(config: TrainConfig) -> None:
    teacher = config.teacher
    for name in (*(each.name for each in fields(ModelConfig)), "dtype"):
        if getattr(teacher, name) != getattr(TeacherConfig(path=None), name):
            problem = "is of one teacher, and there are several, each with its own."
            raise UserError(f"teacher.{name}", getattr(teacher, name), problem, f"Set teacher.members.NAME.{name}")
    for name, node in teacher.members.items():
        _member(f"teacher.members.{name}", node, config)
    if teacher.combine == "route":
        _routes(config)
    elif teacher.route_by:
        problem = f"has no effect with teacher.combine={teacher.combine}: every teacher sees every example."
        raise UserError("teacher.route_by", teacher.route_by, problem, "Set teacher.combine=route")
    if config.hardware.shard_teacher:
        problem = "is for one teacher, and there are several."
        raise UserError("hardware.shard_teacher", True, problem, "Set hardware.shard_teacher=false")


def _member(key: str, node: Any, config: TrainConfig) -> None:
    if not isinstance(node, dict):
        raise UserError(key, node, "is no teacher.", f"For example: +{key}.path=DIRECTORY")
    check_arguments(MemberConfig, node, key)
    if not node.get("path"):
        raise UserError(f"{key}.path", None, "has no value yet, and needs one.", f"Set it: +{key}.path=...")
    _one_of(f"{key}.dtype", node.get("dtype", "float32"), DTYPES)
    weight, is_routed = node.get("weight", 1.0), config.teacher.combine == "route"
    if not 0 < weight < float("inf"):
        raise UserError(f"{key}.weight", weight, "must be a finite number > 0.", f"For example: {key}.weight=1.0")
    for name in ("weight",) if is_routed else ("routes",):
        if node.get(name) is not None:
            problem = f"has no effect with teacher.combine={config.teacher.combine}."
            raise UserError(f"{key}.{name}", node[name], problem, "Leave it out, or change teacher.combine.")


def _routes(config: TrainConfig) -> None:
    teacher, slices = config.teacher, config.data.slices
    if teacher.route_by not in slices:
        problem = "must be one of data.slices, which says which teacher an example has."
        raise UserError("teacher.route_by", teacher.route_by, problem, "For example: data.slices=[domain]")
    owners: dict[str, str] = {}
    for key, member in teacher.models.items():
        for route in member.routes or [key.rpartition(".")[2]]:
            if route in owners:
                problem = f"is a route of {owners[route]} as well."
                raise UserError(f"{key}.routes", route, problem, "Give each value to one teacher.")
            owners[route] = key


def _hardware(config: TrainConfig) -> None:
    hardware = config.hardware
    if hardware.strategy == "fsdp" and any("latency" in name for name in config.returns):
        problem = "holds a latency, which is not measured of a student that may not fit on one device."
        raise UserError("returns", config.returns, problem, "Return cost/parameters, or set hardware.strategy=auto")
    for option in ("shard_teacher", "cpu_offload"):
        if getattr(hardware, option) and hardware.strategy != "fsdp":
            problem = f"has no effect with hardware.strategy={hardware.strategy}: nothing is sharded."
            raise UserError(f"hardware.{option}", True, problem, "Set hardware=fsdp, or leave it out.")
    _packing(config)
    if hardware.shard_teacher and config.teacher.remember:
        problem = "needs every rank to ask the teacher at the same time, and each remembers other examples."
        raise UserError("hardware.shard_teacher", True, problem, "Set teacher.remember=false")
    if hardware.cpu_offload and hardware.accelerator == "cpu":
        raise UserError("hardware.cpu_offload", True, "moves nothing: all is in CPU memory.", "Leave it out.")


def _packing(config: TrainConfig) -> None:
    hardware = config.hardware
    against = {f"hardware.{option}": getattr(hardware, option) for option in NO_PACKING_WITH}
    against["teacher.compile"] = config.teacher.compile
    asked = {"packing": ("on", "auto"), "packed_attention": ("flex", "groups")}  # what has to pack, and what need not
    for name, (value, instead) in asked.items():
        key = f"hardware.{name}"
        if getattr(hardware, name) != value:
            continue
        if config.data.task == "image_classification":
            raise UserError(key, value, "has no effect on images: they have no padding.", "Leave it out.")
        for option in filter(against.get, against):
            problem = f"does not go with {option}, which runs layers where nobody could pack."
            raise UserError(key, value, problem, f"Set {key}={instead}, or {option}=false")
    if hardware.packed_attention == "flex" and hardware.packing == "off":
        problem = "has no effect with hardware.packing=off: no text is packed."
        raise UserError("hardware.packed_attention", "flex", problem, "Set hardware.packing=auto, or leave it out.")


def _term_gradients(config: TrainConfig) -> None:
    key, steps = (
        "callbacks.term_gradients.every_steps",
        (config.callbacks.get("term_gradients") or {}).get("every_steps"),
    )
    if not isinstance(steps, int):
        return
    if config.hardware.strategy == "fsdp":
        problem = "needs the gradient of each term alone, which sharded parameters do not have."
        raise UserError(key, steps, problem, f"Set {key}=null, or hardware.strategy=ddp")
    if steps % config.log_every:
        problem = f"measures at steps that are not logged: only every {config.log_every} are (log_every)."
        raise UserError(key, steps, problem, f"For example: {key}={config.log_every}")
