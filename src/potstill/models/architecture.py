"""Architectures: the transformers config of a model, from a path, from keys, or from keys upon another config."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from potstill.errors import UserError, nearest_hint
from potstill.models.hub import building, reading, warn_unpinned

_FROM_DATA = ("num_labels", "id2label", "label2id")


class ModelOptions(Protocol):
    """The fields of `potstill.config.schema.ModelConfig`."""

    path: str | None
    revision: str | None
    config: dict[str, Any]
    attn_implementation: str | None
    trust_remote_code: bool
    pooling: str
    normalise: bool

    @property
    def dtype(self) -> str: ...


def architecture_of(options: ModelOptions, tokenizer: PreTrainedTokenizerBase | None, who: str) -> PreTrainedConfig:
    """The config at `path` with the keys of `config` changed, or, without a path, the one these keys describe.

    `who` is student or teacher: the group whose keys a UserError names.
    """
    if options.path is not None:
        return upon(_stored(options.path, options, who), options.config, who)
    if not options.config:
        fix = f"Set {who}.path, or {who}.config with a model_type; or choose a preset: {who}=..."
        raise UserError(f"{who}.config", options.config, "leaves nothing to build from: there is no path either.", fix)
    return _described(options.config, tokenizer, who)


def _stored(path: str, options: ModelOptions, who: str) -> PreTrainedConfig:
    with reading(path, f"{who}.path") as name:
        stored = AutoConfig.from_pretrained(
            name, revision=options.revision, trust_remote_code=options.trust_remote_code
        )
    warn_unpinned(path, options.revision, who)
    return stored


def _described(keys: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase | None, who: str) -> PreTrainedConfig:
    """A config from `model_type` and the keys of its class. Unless given, token ids are the tokenizer's."""
    model_type = str(keys.get("model_type", ""))
    if model_type not in CONFIG_MAPPING:
        hint = nearest_hint(model_type, CONFIG_MAPPING) if model_type else "For example: bert, vit, gpt2, llama."
        raise UserError(f"{who}.config.model_type", model_type, "is no architecture of transformers.", hint)
    config_class = CONFIG_MAPPING[model_type]
    given = {key: value for key, value in keys.items() if key != "model_type"}
    _check_keys(config_class, given, who)
    with building(f"{who}.config", dict(keys)):
        return config_class(**{**_token_ids(tokenizer), **given})


def upon(base: PreTrainedConfig, keys: Mapping[str, Any], who: str, layers: Sequence[int] = ()) -> PreTrainedConfig:
    """`base` with some keys changed. `layers`: which layers of `base` its lists of one value a layer should keep."""
    model_type = keys.get("model_type", base.model_type)
    if model_type != base.model_type:
        problem = f"but the architecture it changes is a {base.model_type}."
        raise UserError(f"{who}.config.model_type", model_type, problem, f"Leave {who}.config.model_type out.")
    names = base.attribute_map
    changes = {names.get(key, key): value for key, value in keys.items() if key != "model_type"}
    _check_keys(type(base), changes, who)
    if not changes and not layers:
        return base
    own_name = names.get("num_hidden_layers", "num_hidden_layers")
    with building(f"{who}.config", dict(keys)):
        changes = {**_values_per_layer(base, layers or range(changes.get(own_name, 0))), **changes}
        return type(base).from_dict({**base.to_dict(), **changes})


def _values_per_layer(base: PreTrainedConfig, layers: Sequence[int]) -> dict[str, Any]:
    """The lists in `base` that hold one value for every layer (`layer_types`, ...), for some of the layers.

    None, which asks for the default, where there are more layers than the list knows. No layers: no change.
    """
    if not layers:
        return {}
    num_layers = base.num_hidden_layers
    lists = {
        key: value
        for key, value in base.to_dict().items()
        if isinstance(value, list) and "layer" in key and len(value) == num_layers
    }
    known = max(layers) < num_layers
    return {key: [value[layer] for layer in layers] if known else None for key, value in lists.items()}


def _token_ids(tokenizer: PreTrainedTokenizerBase | None) -> dict[str, int | None]:
    if tokenizer is None:
        return {}
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return {"vocab_size": len(tokenizer), **ids}


def _check_keys(config_class: type[PreTrainedConfig], keys: Mapping[str, Any], who: str) -> None:
    """transformers itself stores a misspelt key and says nothing."""
    fields = {field.name for field in dataclasses.fields(config_class)}
    known = fields | set(inspect.signature(config_class).parameters) | set(config_class.attribute_map)
    for key, value in keys.items():
        if key in _FROM_DATA:
            problem = "would be overwritten: the labels are the data's."
            raise UserError(f"{who}.config.{key}", value, problem, "Set data.label_names=[...] instead.")
        if key not in known:
            problem = f"{config_class.__name__} has no such key."
            raise UserError(f"{who}.config.{key}", value, problem, nearest_hint(key, known - {*_FROM_DATA, "kwargs"}))
