"""A student made of some of the teacher's layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from potstill.errors import UserError, nearest_hint

_CHOICES = ("uniform", "first", "last")


def choose_layers(layers: str | Sequence[int], num_student: int | None, num_teacher: int) -> list[int]:
    """The teacher's layers (from 0) that become the student's, in order.

    uniform: n of m layers, as far apart as can be: round(i * (m - 1) / (n - 1)) for i < n, so that the first and the
    last are kept; n = 1 takes the first (the maximally spaced layers of Shleifer and Rush 2020, arXiv:2010.13002; the
    table in their code agrees for 16 to 6 layers, and takes [0, 6] of 12 where this takes [0, 11]).
    first, last: n in a row. A list: these layers.
    UserError where a layer does not exist, or where their number is unknown or contradicted.
    """
    if not isinstance(layers, str):
        return _check_listed(list(layers), num_student, num_teacher)
    if layers not in _CHOICES:
        fix = f"{nearest_hint(layers, _CHOICES)} Or list them: student.layers=[0,2,5]"
        raise UserError("student.layers", layers, "is no way to choose layers.", fix)
    if not isinstance(num_student, int) or not 1 <= num_student <= num_teacher:
        problem = f"must say how many of the teacher's {num_teacher} layers to take."
        fix = f"Set student.config.num_hidden_layers to a number from 1 to {num_teacher}."
        raise UserError("student.config.num_hidden_layers", num_student, problem, fix)
    if layers == "uniform":
        return _uniform(num_student, num_teacher)
    first = 0 if layers == "first" else num_teacher - num_student
    return list(range(first, first + num_student))


def _uniform(num_student: int, num_teacher: int) -> list[int]:
    gaps = max(num_student - 1, 1)
    # in integers: Python's round() goes to the even number at one half, and two layers could fall together
    return [(2 * i * (num_teacher - 1) + gaps) // (2 * gaps) for i in range(num_student)]


def _check_listed(layers: list[int], num_student: int | None, num_teacher: int) -> list[int]:
    wrong = [layer for layer in layers if not isinstance(layer, int) or not 0 <= layer < num_teacher]
    if wrong or not layers:
        problem = f"the teacher has no layers {wrong}." if wrong else "names no layer."
        raise UserError("student.layers", layers, problem, f"Its layers are 0 to {num_teacher - 1}.")
    if num_student not in (None, len(layers)):
        problem = f"lists {len(layers)} layers, but student.config.num_hidden_layers is {num_student}."
        raise UserError("student.layers", layers, problem, "Leave student.config.num_hidden_layers out.")
    return layers


def copy_layers(student: PreTrainedModel, teacher: PreTrainedModel, layers: Sequence[int]) -> None:
    """Fill the student, in place: its i-th layer from the teacher's `layers[i]`, everything else by the same name.

    UserError where the two differ in more than their number of layers.
    """
    stack = layer_stack(student)
    source = teacher.state_dict()
    weights = {name: source.get(_teacher_name(name, stack, layers)) for name in student.state_dict()}
    _check_shapes(student, weights)
    student.load_state_dict(weights)


def check_width(keys: Mapping[str, Any], teacher_config: PreTrainedConfig) -> None:
    """UserError where the student's config keys ask for another width than the teacher's."""
    own_name = teacher_config.attribute_map.get("hidden_size", "hidden_size")
    key = own_name if own_name in keys else "hidden_size"
    width = teacher_config.hidden_size
    if keys.get(key, width) != width:
        problem = f"is not the teacher's width, {width}: its layers cannot become the student's."
        fix = f"Set student.config.{key}={width}, or student.init=random."
        raise UserError(f"student.config.{key}", keys[key], problem, fix)


def layer_stack(model: PreTrainedModel) -> str:
    """Module path of the list of the model's layers: of the lists of that length the one with most parameters."""
    num_layers = getattr(model.config, "num_hidden_layers", None)
    stacks = {
        path: sum(parameter.numel() for parameter in module.parameters())
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    }
    if not stacks:
        problem = f"finds no list of layers in a {type(model).__name__}."
        raise UserError(
            "student.init", "teacher_layers", problem, "Set student.init=random or student.init=pretrained."
        )
    return max(stacks, key=lambda path: stacks[path])


def _teacher_name(name: str, stack: str, layers: Sequence[int]) -> str:
    if not name.startswith(f"{stack}."):
        return name
    layer, _, rest = name.removeprefix(f"{stack}.").partition(".")
    return f"{stack}.{layers[int(layer)]}.{rest}"


def _check_shapes(student: PreTrainedModel, weights: Mapping[str, Tensor | None]) -> None:
    for name, value in student.state_dict().items():
        weight = weights[name]
        if weight is None or weight.shape != value.shape:
            found = "has no such tensor" if weight is None else f"has {list(weight.shape)}"
            problem = f"differs from the teacher: {name} is {list(value.shape)}, the teacher {found}."
            raise UserError("student.config", "<changed>", problem, "Change num_hidden_layers alone.")
