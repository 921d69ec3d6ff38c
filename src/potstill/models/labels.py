"""Labels: which column of a classifier is which label of the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from potstill.errors import UserError

_MAX_NAMED = 12  # labels named in an error


def label_order(model_config: PreTrainedConfig, label_names: Sequence[str] | None, key: str) -> list[int] | None:
    """The model's column for each of the data's labels; None where they are in the same order already.

    Labels are matched by name. A model that names none (`LABEL_0`, ...) is taken to have them in the data's order.
    UserError under `key` where the two do not have the same labels.
    """
    if label_names is None:
        return None
    known = model_labels(model_config)
    if not _has_names(known) and len(known) == len(label_names):
        return None
    _refuse_unknown(known, label_names, key, str(model_config.name_or_path))
    _refuse_unseen(known, label_names)
    order = [known.index(name) for name in label_names]
    return None if order == list(range(len(order))) else order


def model_labels(config: PreTrainedConfig) -> list[str]:
    """The label of each column."""
    return [str(config.id2label[column]) for column in range(config.num_labels)]  # type: ignore[index]


def set_labels(config: PreTrainedConfig, label_names: Sequence[str]) -> None:
    """Give the config as many columns as there are labels, in their order."""
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: column for column, name in enumerate(label_names)}


def reorder_head(model: PreTrainedModel, order: Sequence[int]) -> None:
    """Put the columns of a classifier's head into another order, in place."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    head = next(layer for layer in reversed(layers) if layer.out_features == len(order))
    for parameter in head.parameters():
        parameter.data = parameter.data[list(order)]


def _has_names(labels: Sequence[str]) -> bool:
    return any(label != f"LABEL_{column}" for column, label in enumerate(labels))


def _refuse_unknown(known: Sequence[str], label_names: Sequence[str], key: str, model_name: str) -> None:
    unknown = [name for name in label_names if name not in known]
    if unknown:
        problem = f"does not know these labels of the data: {_listed(unknown)}. It knows {_listed(known)}."
        fix = "Take a model trained on these labels, or map the data's label column to the model's names."
        raise UserError(key, model_name, problem, fix)


def _refuse_unseen(known: Sequence[str], label_names: Sequence[str]) -> None:
    unseen = [name for name in known if name not in label_names]
    if unseen:
        problem = f"lacks labels that the model has: {_listed(unseen)}."
        fix = f"Name them all, so that student and teacher score the same: data.label_names=[{_listed(known)}]"
        raise UserError("data.label_names", f"[{_listed(label_names)}]", problem, fix)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _MAX_NAMED
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:_MAX_NAMED])}, ... and {rest} more"
