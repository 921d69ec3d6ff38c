"""Models from config: the frozen teacher, and the student with one of three ways to begin."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from potstill.errors import UserError, nearest_hint
from potstill.models import architecture
from potstill.models.hub import building, reading, warn_unpinned
from potstill.models.initialise import choose_layers, copy_layers
from potstill.models.labels import label_order, model_labels, reorder_head, set_labels
from potstill.models.task import Task

log = logging.getLogger(__name__)

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}
INITS = ("random", "pretrained", "teacher_layers")


class ModelOptions(Protocol):
    """The fields of `potstill.config.schema.ModelConfig`."""

    path: str | None
    revision: str | None
    config: dict[str, Any] | None
    dtype: str
    attn_implementation: str | None
    trust_remote_code: bool


class StudentOptions(ModelOptions, Protocol):
    init: str
    layers: Any


def load_teacher(
    config: ModelOptions,
    task: Task,
    *,
    label_names: Sequence[str] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> PreTrainedModel:
    """The teacher in eval mode, without gradients.

    From `path`, or, for trying things out, from `config` with random weights; only then are `label_names` used. A path
    whose weights do not fill the model is a UserError: a head at random teaches noise.
    """
    if config.path is None:
        model = _random(config, task, label_names, tokenizer, "teacher")
    else:
        base = _architecture(config, tokenizer, "teacher")
        model, unfilled = _pretrained(config, task, base, "teacher")
        if unfilled:
            problem = f"its weights lack {_named(unfilled)} of a {type(model).__name__}, which would be random."
            fix = f"Take a model trained for data.task={task.name}."
            raise UserError("teacher.path", config.path, problem, fix)
    _set_pad_token(model, tokenizer)
    return model.requires_grad_(False).eval()


def load_student(
    config: StudentOptions,
    task: Task,
    *,
    label_names: Sequence[str] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    teacher: PreTrainedModel | None = None,
) -> PreTrainedModel:
    """The student in train mode, its columns in the order of `label_names`.

    init=random: the architecture of `config`, of `path`, or of `path` with the keys of `config` changed.
    init=pretrained: the weights of `path`; a head of another size starts at random.
    init=teacher_layers: the teacher's architecture and weights, with only some of its layers.
    """
    if config.init == "random":
        model = _random(config, task, label_names, tokenizer, "student")
    elif config.init == "pretrained":
        model = _pretrained_student(config, task, label_names, tokenizer)
    elif config.init == "teacher_layers":
        model = _from_teacher(config, task, label_names, teacher)
    else:
        raise UserError("student.init", config.init, "is no way to begin.", nearest_hint(config.init, INITS))
    _check_vocabulary(model, tokenizer)
    _set_pad_token(model, tokenizer)
    return model.train()


def _random(
    config: ModelOptions,
    task: Task,
    label_names: Sequence[str] | None,
    tokenizer: PreTrainedTokenizerBase | None,
    who: str,
) -> PreTrainedModel:
    base = _architecture(config, tokenizer, who)
    if label_names is not None:
        set_labels(base, label_names)
    return _build(config, task, base, who)


def _pretrained_student(
    config: StudentOptions,
    task: Task,
    label_names: Sequence[str] | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> PreTrainedModel:
    if config.path is None:
        raise UserError(
            "student.path", None, "init=pretrained needs weights.", "Set student.path, or student.init=random."
        )
    base = _architecture(config, tokenizer, "student")
    order = None
    if label_names is not None:
        same_labels = set(model_labels(base)) == set(label_names)
        order = label_order(base, label_names, "student.path") if same_labels else None
        set_labels(base, label_names)
    model, unfilled = _pretrained(config, task, base, "student")
    if unfilled:
        log.warning("student.path=%s has no weights for %s: these start at random.", config.path, _named(unfilled))
    if order is not None:
        reorder_head(model, order)
    return model


def _from_teacher(
    config: StudentOptions, task: Task, label_names: Sequence[str] | None, teacher: PreTrainedModel | None
) -> PreTrainedModel:
    if teacher is None:
        raise UserError(
            "student.init", "teacher_layers", "there is no teacher.", "Set teacher.path, or student.init=random."
        )
    if config.path is not None:
        raise UserError("student.path", config.path, "init=teacher_layers reads no weights.", "Set student.path=null.")
    keys = config.config or {}
    own_name = teacher.config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    num_layers = keys.get("num_hidden_layers", keys.get(own_name))
    layers = choose_layers(config.layers, num_layers, teacher.config.num_hidden_layers)
    base = architecture.upon(teacher.config, {"num_hidden_layers": len(layers), **keys}, "student", layers)
    student = _build(config, task, base, "student")
    copy_layers(student, teacher, layers)
    if label_names is not None:
        order = label_order(teacher.config, label_names, "teacher.path")
        if order is not None:
            reorder_head(student, order)
        set_labels(student.config, label_names)
    return student


def _architecture(config: ModelOptions, tokenizer: PreTrainedTokenizerBase | None, who: str) -> PreTrainedConfig:
    if config.path is not None:
        warn_unpinned(config.path, config.revision, who)
        base = architecture.from_path(config.path, config.revision, config.trust_remote_code, who)
        return architecture.upon(base, config.config or {}, who)
    if not config.config:
        fix = f"Set {who}.path, or {who}.config with a model_type; or choose a preset: {who}=..."
        raise UserError(f"{who}.config", config.config, "there is neither a path nor a config to build from.", fix)
    return architecture.from_keys(config.config, tokenizer, who)


def _build(config: ModelOptions, task: Task, base: PreTrainedConfig, who: str) -> PreTrainedModel:
    with building(f"{who}.config", config.config or config.path, config.attn_implementation):
        return getattr(transformers, task.auto_class).from_config(base, **_loading(config, who))


def _pretrained(
    config: ModelOptions, task: Task, base: PreTrainedConfig, who: str
) -> tuple[PreTrainedModel, list[str]]:
    """The model with the weights of `path`, and the names of the tensors these do not fill."""
    assert config.path is not None
    with reading(config.path, f"{who}.path") as name, building(f"{who}.path", config.path, config.attn_implementation):
        model, info = getattr(transformers, task.auto_class).from_pretrained(
            name,
            config=base,
            revision=config.revision,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported here, under the user's key
            **_loading(config, who),
        )
    mismatched = [entry[0] for entry in info["mismatched_keys"]]
    inner = [name for name in mismatched if name.startswith(f"{model.base_model_prefix}.")]
    if inner:
        problem = f"does not fit the weights of {config.path}: {_named(inner)} would start at random."
        raise UserError(f"{who}.config", config.config, problem, f"Set {who}.config=null.")
    return model, sorted([*info["missing_keys"], *mismatched])


def _loading(config: ModelOptions, who: str) -> dict[str, Any]:
    if config.dtype not in DTYPES:
        raise UserError(f"{who}.dtype", config.dtype, "is no dtype for a model.", nearest_hint(config.dtype, DTYPES))
    return {
        "dtype": DTYPES[config.dtype],
        "attn_implementation": config.attn_implementation,
        "trust_remote_code": config.trust_remote_code,
    }


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> None:
    if tokenizer is None:
        return
    num_embeddings = model.get_input_embeddings().weight.shape[0]  # type: ignore[index]
    if len(tokenizer) > num_embeddings:
        problem = f"has {len(tokenizer)} ids, but the student has embeddings for {num_embeddings}."
        fix = f"Set student.config.vocab_size={len(tokenizer)}, or the tokenizer that belongs to the student."
        raise UserError("student.tokenizer", tokenizer.name_or_path or type(tokenizer).__name__, problem, fix)


def _set_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Classifiers that are decoders look for the last token that is not padding."""
    if tokenizer is not None and getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = tokenizer.pad_token_id


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
