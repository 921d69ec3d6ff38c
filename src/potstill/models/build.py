"""From an architecture to a model: with random weights, or with those stored at a path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from potstill.errors import UserError, nearest_hint
from potstill.models.architecture import ModelOptions
from potstill.models.hub import building, reading
from potstill.models.task import TASKS, Task

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def build_random(options: ModelOptions, task: Task, architecture: PreTrainedConfig, who: str) -> PreTrainedModel:
    """A model with random weights, from torch's global generator, in train mode."""
    auto_class = _auto_class(options, task, architecture, who)
    with building(f"{who}.config", options.config or options.path, options.attn_implementation):
        model = auto_class.from_config(architecture, **_loading(options, who))
    if task.is_causal:
        _check_causal(model, who)
    return model


def build_pretrained(
    options: ModelOptions, task: Task, architecture: PreTrainedConfig, who: str
) -> tuple[PreTrainedModel, list[str]]:
    """A model with the weights of `options.path`, in eval mode, and the names of the tensors these do not fill.

    Only tensors of the head may be of another size than the stored ones; any other is a UserError.
    """
    path, key = options.path, f"{who}.path"
    assert path is not None
    auto_class = _auto_class(options, task, architecture, who)
    with reading(path, key) as name, building(key, path, options.attn_implementation):
        model, info = auto_class.from_pretrained(
            name,
            config=architecture,
            revision=options.revision,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, under the user's key
            **_loading(options, who),
        )
    mismatched = sorted(entry[0] for entry in info["mismatched_keys"])
    inner = [name for name in mismatched if task.is_embedding or name.startswith(f"{model.base_model_prefix}.")]
    if inner:
        problem = f"does not fit the weights of {path}: {named(inner)} would start at random."
        raise UserError(f"{who}.config", options.config, problem, f"Leave {who}.config out, or set {who}.init=random.")
    if task.is_causal:
        _check_causal(model, who)
    missing = {name for name in info["missing_keys"] if not (task.is_embedding and name.startswith("pooler."))}
    return model, sorted({*missing, *mismatched})  # no embedding is made of BERT's pooler


def named(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _auto_class(options: ModelOptions, task: Task, architecture: PreTrainedConfig, who: str) -> Any:
    auto_class = getattr(transformers, task.auto_class)
    if _is_able(architecture, task) or getattr(architecture, "auto_map", None):
        return auto_class
    able = [name for name, other in TASKS.items() if _is_able(architecture, other)]
    key = f"{who}.path" if options.path else f"{who}.config.model_type"
    problem = f"a {architecture.model_type} does no {task.name}; it does {' or '.join(able) or 'none of our tasks'}."
    raise UserError(key, options.path or architecture.model_type, problem, "Change it, or data.task.")


def _check_causal(model: PreTrainedModel, who: str) -> None:
    """UserError where a language model's logits change with a later token: it sees what it should predict."""
    ids = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]], device=model.device)
    was_training = model.training
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, use_cache=False).logits[:, :-1]
    model.train(was_training)
    rounding = 16 * torch.finfo(logits.dtype).eps * logits.abs().max()
    if (logits[0] - logits[1]).abs().max() > rounding:
        problem = f"a {type(model).__name__} built so attends to later tokens, those it should predict among them."
        raise UserError(f"{who}.config", model.config.model_type, problem, f"Set {who}.config.is_decoder=true.")


def _is_able(architecture: PreTrainedConfig, task: Task) -> bool:
    """AutoModel, which embeddings are made of, also loads what reads no text, and what needs a second one."""
    if task.is_embedding and not getattr(architecture, "is_encoder_decoder", False):
        return any(_is_able(architecture, other) for other in TASKS.values() if other.is_text and other != task)
    return not task.is_embedding and type(architecture) in getattr(transformers, task.auto_class)._model_mapping


def _loading(options: ModelOptions, who: str) -> dict[str, Any]:
    if options.dtype not in DTYPES:
        raise UserError(f"{who}.dtype", options.dtype, "is no dtype for a model.", nearest_hint(options.dtype, DTYPES))
    return {
        "dtype": DTYPES[options.dtype],
        "attn_implementation": options.attn_implementation,
        "trust_remote_code": options.trust_remote_code,
    }
