"""Models from their options: the frozen teacher, and the student with one of three ways to begin."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from potstill.errors import UserError, nearest_hint
from potstill.models.architecture import ModelOptions, architecture_of, upon
from potstill.models.build import build_pretrained, build_random, named
from potstill.models.initialise import check_width, choose_layers, copy_layers, layer_stack
from potstill.models.labels import label_order, model_labels, reorder_head, set_labels
from potstill.models.pooling import set_pooling
from potstill.models.task import Task

log = logging.getLogger(__name__)

INITS = ("random", "pretrained", "teacher_layers")


class StudentOptions(ModelOptions, Protocol):
    """The fields of `potstill.config.schema.StudentConfig`."""

    init: str
    layers: Any


def load_teacher(
    options: ModelOptions,
    task: Task,
    *,
    label_names: Sequence[str] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    who: str = "teacher",
) -> PreTrainedModel:
    """The teacher in eval mode, without gradients, its columns in its own order.

    From `path`, or, for trying things out, from `config` with random weights; only then are `label_names` used. A path
    whose weights do not fill the model is a UserError: a head at random teaches noise. who: its key in the config.
    """
    if options.path is None:
        model = _random(options, task, label_names, tokenizer, who)
    else:
        model, unfilled = build_pretrained(options, task, architecture_of(options, tokenizer, who), who)
        if unfilled:
            problem = f"its weights lack {named(unfilled)} of a {type(model).__name__}, which would be random."
            raise UserError(f"{who}.path", options.path, problem, f"Take a model trained for data.task={task.name}.")
    if task.is_embedding:
        set_pooling(model.config, options)
    _set_pad_token(model, tokenizer)
    return model.requires_grad_(False).eval()


def load_student(
    options: StudentOptions,
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
    if options.init == "random":
        model = _random(options, task, label_names, tokenizer, "student")
    elif options.init == "pretrained":
        model = _pretrained(options, task, label_names, tokenizer)
    elif options.init == "teacher_layers":
        model = _from_teacher(options, task, label_names, teacher)
    else:
        raise UserError("student.init", options.init, "is no way to begin.", nearest_hint(options.init, INITS))
    if task.is_embedding:
        set_pooling(model.config, options)
    _check_vocabulary(model, tokenizer)
    _set_pad_token(model, tokenizer)
    return model.train()


def _random(
    options: ModelOptions,
    task: Task,
    label_names: Sequence[str] | None,
    tokenizer: PreTrainedTokenizerBase | None,
    who: str,
) -> PreTrainedModel:
    architecture = architecture_of(options, tokenizer, who)
    if label_names is not None:
        set_labels(architecture, label_names)
    return build_random(options, task, architecture, who)


def _pretrained(
    options: StudentOptions,
    task: Task,
    label_names: Sequence[str] | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> PreTrainedModel:
    if options.path is None:
        fix = "Set student.path, or student.init=random."
        raise UserError("student.path", None, "gives no weights, which init=pretrained needs.", fix)
    architecture = architecture_of(options, tokenizer, "student")
    order = None
    if label_names is not None:
        if set(model_labels(architecture)) == set(label_names):
            order = label_order(architecture, label_names, "student.path")
        set_labels(architecture, label_names)
    model, unfilled = build_pretrained(options, task, architecture, "student")
    if unfilled:
        log.warning("student.path=%s has no weights for %s: these start at random.", options.path, named(unfilled))
    if order is not None:
        reorder_head(model, order)
    return model


def _from_teacher(
    options: StudentOptions, task: Task, label_names: Sequence[str] | None, teacher: PreTrainedModel | None
) -> PreTrainedModel:
    if teacher is None:
        fix = "Set teacher.path, or student.init=random."
        raise UserError("student.init", "teacher_layers", "needs a teacher, and there is none.", fix)
    if options.path is not None:
        problem = "would not be read: init=teacher_layers takes architecture and weights from the teacher."
        raise UserError("student.path", options.path, problem, "Set student.path=null, or student.init=pretrained.")
    layer_stack(teacher)  # first: it refuses architectures without layers
    check_width(options.config, teacher.config)
    own_name = teacher.config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    num_layers = options.config.get("num_hidden_layers", options.config.get(own_name))
    layers = choose_layers(options.layers, num_layers, teacher.config.num_hidden_layers)
    keys = {**options.config, own_name: len(layers)}
    student = build_random(options, task, upon(teacher.config, keys, "student", layers), "student")
    copy_layers(student, teacher, layers)
    _label_as_data(student, label_names)
    return student


def _label_as_data(student: PreTrainedModel, label_names: Sequence[str] | None) -> None:
    """Put the columns of a copied head into the data's order, and name them so."""
    if label_names is None:
        return
    order = label_order(student.config, label_names, "teacher.path")
    if order is not None:
        reorder_head(student, order)
    set_labels(student.config, label_names)


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
