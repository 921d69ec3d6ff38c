"""Config in, parts out. What is cheap to check comes first, so that bad input costs no loading."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from potstill.commands.caching import cached_teacher
from potstill.commands.first_batch import check_teacher
from potstill.commands.preflight import num_workers
from potstill.commands.recorded import check_recorded, recorded_teacher
from potstill.commands.several import refuse_taps, several
from potstill.commands.shared import Source, shared_memory, shared_source, shared_teacher
from potstill.config.build import build
from potstill.config.schema import NO_PACKING_WITH, HardwareConfig, ModelConfig, TrainConfig
from potstill.data.build import build_data, own_tokenizer
from potstill.data.generated import GeneratedText
from potstill.data.labels import label_names
from potstill.data.microbatch import cut
from potstill.errors import UserError
from potstill.hardware.sharding import checkpoint_activations, shard
from potstill.losses.coupling import refuse_cuts, refuse_weights
from potstill.losses.fused import Options
from potstill.losses.schedules import without_schedules
from potstill.models.labels import label_order
from potstill.models.layers import layers_of
from potstill.models.load import load_student, load_teacher
from potstill.models.packing import set_packing
from potstill.models.taps import check_taps
from potstill.models.task import find_task
from potstill.models.tokenizers import check_same_tokenizer, load_tokenizer
from potstill.module import DistillationModule
from potstill.objective import Objective
from potstill.optimisation import schedule_of
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import SignalSource

CUTS = ("micro_batch_examples", "micro_batch_tokens")  # options that cut a batch
SAMPLE_EXAMPLES = 4  # enough for every term to see more than one row


@dataclass
class Models:
    student: PreTrainedModel
    teacher: SignalSource | None


def assemble_objective(config: TrainConfig) -> Objective:
    """The terms of the config. UserError where one of them needs a teacher and there is none."""
    terms, schedules = {}, {}
    for name, node in config.loss.term.items():
        options, schedules[name] = without_schedules(node, f"loss.term.{name}")
        terms[name] = build(options, f"loss.term.{name}")
    objective = Objective(terms, schedules)
    objective.refuse_absent(find_task(config.data.task).output, config.data.task)
    weighing = {"data.columns.weight": config.data.columns.weight, "data.balance_by": config.data.balance_by}
    refuse_weights(objective.terms.values(), weighing)  # type: ignore[arg-type]
    if config.teacher.cache.dir and config.teacher.cache.form != "exact":
        fix = "Keep all of the signal: teacher.cache.form=exact"
        objective.refuse_sparse("teacher.cache.form", config.teacher.cache.form, fix)
    check_recorded(config, objective)
    if objective.is_taught and not (config.teacher.models or config.data.columns.logprobs):
        names = ", ".join(config.loss.term)
        problem = f"is no teacher, but the loss ({names}) needs its signal."
        fix = "Set teacher=pretrained teacher.path=DIRECTORY, or train without one: loss=ce"
        raise UserError("teacher.path", config.teacher.path, problem, fix)
    if config.teacher.members:
        refuse_taps(objective)
    return objective


def assemble_source(config: TrainConfig, *, labelled_only: bool = False) -> Source:
    """Read, split, label and encode the data, unless an earlier job of this process has."""
    source = shared_source(config, lambda: _read(config, labelled_only=labelled_only), labelled_only=labelled_only)
    source.data.route_by = config.teacher.route_by
    return source


def _read(config: TrainConfig, *, labelled_only: bool) -> Source:
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
        num_workers=num_workers(config.hardware),
        limit_batches=config.limit_batches,
    )
    names = None if task.is_embedding else names  # its models know no labels
    if isinstance(splits, GeneratedText):
        return Source(task, data, names, tokenizer, splits.licence_records, splits.left_out)
    return Source(task, data, names, tokenizer)


def assemble_models(config: TrainConfig, source: Source, objective: Objective) -> Models:
    """Student and, where it is needed, teacher; both checked against the data, each other and the taps."""
    teacher = None
    is_here = objective.is_taught and config.data.columns.logprobs is None
    if is_here or config.student.init == "teacher_layers":
        teacher = shared_teacher(config, source, lambda: _load_teacher(config, source))
    student = load_student(
        config.student,
        source.task,
        label_names=source.label_names,
        tokenizer=source.tokenizer,
        teacher=teacher if isinstance(teacher, PreTrainedModel) else None,
    )
    if config.hardware.precision == "bf16-true":
        student.bfloat16()  # here, and not by Lightning: projectors and losses stay in float32
    if config.hardware.activation_checkpointing:
        checkpoint_activations(student)
    if source.task.is_text:
        can_pack = not any(getattr(config.hardware, option) for option in NO_PACKING_WITH)
        packing = config.hardware.packing if can_pack else "off"
        set_packing(student, packing, "student", kind=config.hardware.packed_attention, is_trained=True)
    locate(objective, student, teacher)
    _check_taps(objective, student, teacher)
    if not objective.is_taught:
        return Models(student, None)
    if teacher is None:
        return Models(student, recorded_teacher(source))
    return Models(student, signal_source(config, source, teacher, objective))


def _load_teacher(config: TrainConfig, source: Source) -> nn.Module:
    """The model; of several teachers, a list of theirs."""
    options = {"label_names": source.label_names, "tokenizer": source.tokenizer}
    models = [load_teacher(each, source.task, **options, who=key) for key, each in config.teacher.models.items()]
    if config.teacher.compile:
        for model in models:
            model.compile()
    return nn.ModuleList(models) if config.teacher.members else models[0]


def signal_source(config: TrainConfig, source: Source, teacher: nn.Module, objective: Objective) -> SignalSource:
    """The teacher as the module sees it, its columns in the order of the data's labels."""
    check_tokenizers(config, source)
    if config.teacher.remember and config.data.pair_by_label:
        problem = "keeps what is met again, and data.pair_by_label draws new pairs for every epoch."
        raise UserError("teacher.remember", True, problem, "Set teacher.remember=false")
    models = teacher if isinstance(teacher, nn.ModuleList) else [teacher]
    packing = "off" if config.teacher.compile else config.hardware.packing  # else compiled anew for each batch
    sources = {}
    for key, model in zip(config.teacher.models, models, strict=True):
        sources[key] = live = live_teacher(model, source, key)  # type: ignore[arg-type]
        if source.task.is_text:
            set_packing(live.model, packing, key, kind=config.hardware.packed_attention)
        if config.teacher.cache.dir:
            sources[key] = cached_teacher(config, source, objective.needs_teacher, live)
        if config.teacher.remember:
            sources[key] = shared_memory(config, source, objective, sources[key], key)
    return several(config, source, sources) if config.teacher.members else sources["teacher"]


def live_teacher(model: PreTrainedModel, source: Source, key: str) -> LiveTeacher:
    """`model`, its columns in the order of the data's labels. UserError under `key` where it has others."""
    order = None
    if source.label_names is not None:
        order = label_order(model.config, source.label_names, f"{key}.path")
    return LiveTeacher(model, source.task, order)


def check_tokenizers(config: TrainConfig, source: Source) -> None:
    """UserError where a teacher would read other ids than the data was encoded with."""
    for model in config.teacher.models.values():
        if source.tokenizer is not None and model.path:
            check_same_tokenizer(source.tokenizer, teacher_tokenizer(model))


def check_same(tokenizer: PreTrainedTokenizerBase, model: ModelConfig) -> None:
    """Raises UserError where the model at `path` was trained with another tokenizer."""
    check_same_tokenizer(tokenizer, teacher_tokenizer(model))


def teacher_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    assert model.path is not None
    return load_tokenizer(model.path, model.revision, model.trust_remote_code)


def _tokenizer(config: TrainConfig, own: PreTrainedTokenizerBase | None) -> PreTrainedTokenizerBase:
    """The student's own by name, by its weights, the data's, or the teacher's: the first there is."""
    student = config.student
    if student.tokenizer:
        return load_tokenizer(student.tokenizer, None, student.trust_remote_code)
    if student.path:
        return load_tokenizer(student.path, student.revision, student.trust_remote_code)
    if own is not None:
        return own
    teachers = [model for model in config.teacher.models.values() if model.path]
    if teachers:
        return teacher_tokenizer(teachers[0])
    problem = "text needs a tokenizer, and neither student, data nor teacher brings one."
    raise UserError("student.tokenizer", None, problem, "Set student.tokenizer=NAME_OR_DIRECTORY")


def locate(objective: Objective, student: PreTrainedModel, teacher: nn.Module | None) -> None:
    """Tell the terms that number layers where these are."""
    for name, term in objective.terms.items():
        if term.by_layer:
            assert isinstance(teacher, PreTrainedModel)
            key = f"loss.term.{name}"
            term.locate(layers_of(student, key, who="student"), layers_of(teacher, key, who="teacher"))  # type: ignore[operator]


def _check_taps(objective: Objective, student: PreTrainedModel, teacher: nn.Module | None) -> None:
    for name, term in objective.terms.items():
        check_taps(student, term.student_taps, f"loss.term.{name}.student_tap", who="student")  # type: ignore[arg-type]
        if teacher is not None:
            check_taps(teacher, term.teacher_taps, f"loss.term.{name}.teacher_tap", who="teacher")  # type: ignore[arg-type]


def refuse_batch_norm(student: nn.Module, limits: dict[str, int | None], num_ranks: int) -> None:
    """Statistics of a micro-batch are not those of the batch: with them, gradients would depend on how it is cut."""
    cuts: dict[str, tuple[int | None, int | None]] = {key: (limit, None) for key, limit in limits.items()}
    cuts["hardware.devices"] = (num_ranks if num_ranks > 1 else None, 1)
    for key, (value, without) in cuts.items():
        for path, layer in student.named_modules():
            if value and layer.training and isinstance(layer, _BatchNorm):
                problem = f"would change the gradient: the student's '{path}' normalises over what it sees at once."
                instead = "null" if without is None else without
                fix = f"Set {key}={instead}, or choose a student without BatchNorm, such as vit_digits_tiny."
                raise UserError(key, value, problem, fix)


def make_module(
    config: TrainConfig, source: Source, models: Models, objective: Objective, num_ranks: int = 1
) -> DistillationModule:
    """The module, its terms prepared on a few examples. UserError for what may not be cut where something cuts it."""
    limits = {f"hardware.{name}": getattr(config.hardware, name) for name in CUTS}
    refuse_cuts(objective.terms.values(), limits, num_ranks)  # type: ignore[arg-type]
    refuse_batch_norm(models.student, limits, num_ranks)
    optimizer = dict(config.optim.optimizer)
    weight_decay = optimizer.pop("weight_decay", 0.0)
    if config.hardware.compile:
        models.student.compile()
    num_steps = config.optim.max_steps or (config.optim.max_epochs or 1) * source.data.batches_per_epoch
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
            num_steps=num_steps,
        ),
        weight_decay=weight_decay,
        clip_norm=config.optim.clip_norm,
        max_examples=config.hardware.micro_batch_examples,
        max_tokens=config.hardware.micro_batch_tokens,
        num_steps=num_steps,
        seed=config.seed,
        on_nonfinite=config.optim.on_nonfinite,  # type: ignore[arg-type]
        max_skipped=config.optim.max_skipped,
        shard=_sharding(config.hardware, models, objective) if config.hardware.strategy == "fsdp" else None,
        num_examples=source.data.num_examples("train"),
        fusing=fusing(config.hardware),
    )
    batches = iter(source.data.train_dataloader())
    first = next(batches)
    module.prepare(cut(first, SAMPLE_EXAMPLES, None)[0])
    objective.check_rows(source.task.count_rows(first))
    check_teacher(config, module, chain([first], batches))
    return module


def fusing(hardware: HardwareConfig) -> Options | None:
    """How terms on a language model's logits are computed; None: from all logits at once."""
    logits_dtype = getattr(torch, hardware.logits_dtype)
    return Options(logits_dtype, compiled=hardware.compile) if hardware.fused_head else None


def _sharding(hardware: HardwareConfig, models: Models, objective: Objective) -> Callable[[DeviceMesh], None]:
    def shard_all(mesh: DeviceMesh) -> None:
        shard(models.student, mesh, cpu_offload=hardware.cpu_offload)
        shard(objective, mesh, cpu_offload=hardware.cpu_offload)
        if hardware.shard_teacher and models.teacher and models.teacher.model:
            shard(models.teacher.model, mesh)

    return shard_all
