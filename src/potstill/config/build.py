"""The only place that turns a `_target_` into an object."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Set
from typing import Any

from hydra.utils import get_object

from potstill.errors import UserError, nearest_hint

# What a config may name. A config file is data: it must not be able to call os.system.
IMPORTABLE = ("potstill.", "torch.optim.", "pytorch_lightning.callbacks.", "pytorch_lightning.loggers.")

# Plain annotations: what they accept, how they are called in an error, an example.
_PLAIN: dict[str, tuple[tuple[type, ...], str, str]] = {
    "float": ((int, float), "a number", "1.0e-3"),
    "int": ((int,), "a whole number", "8"),
    "bool": ((bool,), "true or false", "true"),
    "str": ((str,), "text", "NAME"),
    "None": ((type(None),), "null", "null"),
}


def build(node: Mapping[str, Any], key: str, **arguments: Any) -> Any:
    """What `node` describes: its `_target_` called with its other keys and `arguments`; nodes inside it likewise.

    Not `hydra.utils.instantiate`: it would call whatever a node inside this one names, and wrap every error.
    `key` is where the node stands in the config, for error messages.
    Raises UserError for a missing, unknown or forbidden `_target_`, for an argument the target does not take, for a
    value of the wrong plain type, and for what a library's own target refuses.
    """
    target = locate(node, key)
    given = {name: _inner(value, f"{key}.{name}") for name, value in node.items() if name != "_target_"}
    check_arguments(target, given, key, supplied=set(arguments))
    try:
        return target(**{**given, **arguments})
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError) or node["_target_"].startswith("potstill."):
            raise
        problem = f"is refused by {target.__name__}: {_first_line(error)}"
        raise UserError(key, given, problem, f"Check the values under {key}.") from error


def locate(node: Mapping[str, Any], key: str) -> Any:
    """The class or function that `node` names."""
    path = node.get("_target_")
    if not path:
        problem = "has no _target_, so nothing would be built from it."
        raise UserError(key, dict(node), problem, f"Choose an option of the group, or set {key}._target_=...")
    if not str(path).startswith(IMPORTABLE):
        problem = "is outside what a config may import."
        raise UserError(f"{key}._target_", path, problem, f"Allowed prefixes: {', '.join(IMPORTABLE)}")
    try:
        return get_object(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}._target_", path, "cannot be imported.", _first_line(error)) from error


def check_arguments(target: Any, given: Mapping[str, Any], key: str, supplied: Set[str] = frozenset()) -> None:
    """Refuse arguments that `target` does not take, lacks, or would choke on later."""
    parameters = inspect.signature(target).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    for name, value in given.items():
        if name in parameters:
            _check_type(parameters[name], value, f"{key}.{name}")
        elif inspect.Parameter.VAR_KEYWORD not in kinds:
            problem = f"is no option of {target.__name__}; it would have no effect."
            raise UserError(f"{key}.{name}", value, problem, nearest_hint(name, set(parameters) - supplied))
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in many
        if required and name not in given and name not in supplied:
            raise UserError(
                f"{key}.{name}", None, f"is missing; {target.__name__} needs it.", f"Set it: {key}.{name}=..."
            )


def _inner(value: Any, key: str) -> Any:
    return build(value, key) if isinstance(value, Mapping) and "_target_" in value else value


def _check_type(parameter: inspect.Parameter, value: Any, key: str) -> None:
    """Only plain types are checked; everything else is the target's own business."""
    names = _plain_names(parameter)
    accepted = [kind for name in names for kind in _PLAIN[name][0]]
    wrong_bool = isinstance(value, bool) and bool not in accepted
    if names and (wrong_bool or not isinstance(value, tuple(accepted))):
        wanted = " or ".join(_PLAIN[name][1] for name in names)
        raise UserError(key, value, f"is not {wanted}.", f"For example: {key}={_PLAIN[names[0]][2]}")


def _plain_names(parameter: inspect.Parameter) -> list[str]:
    """The plain types of its annotation (`float`, `str | None`), else that of a default that is a number; or none."""
    annotation = parameter.annotation
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    names = [name.strip() for name in text.split("|")]
    if all(name in _PLAIN for name in names):
        return names
    is_number = isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool)
    return ["float"] if is_number else []


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
