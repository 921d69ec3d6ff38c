"""The only place that turns a `_target_` into an object."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Set
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate

from potstill.errors import UserError, nearest_hint

# What a config may name. A config file is data: it must not be able to call os.system.
IMPORTABLE = ("potstill.", "torch.optim.", "pytorch_lightning.callbacks.", "pytorch_lightning.loggers.")


def build(node: Mapping[str, Any], key: str, **arguments: Any) -> Any:
    """What `node` describes: its `_target_` called with its other keys and `arguments`.

    `key` is where the node stands in the config, for error messages.
    Raises UserError for a missing, unknown or forbidden `_target_`, for an argument the target does not take and for a
    value of the wrong plain type.
    """
    target = locate(node, key)
    given = {name: value for name, value in node.items() if not name.startswith("_")}
    check_arguments(target, given, key, supplied=set(arguments))
    try:
        return instantiate(dict(node), **arguments, _convert_="all")
    except InstantiationException as error:
        raise error.__cause__ or error from None  # what the target itself says, without Hydra's wrapping


def locate(node: Mapping[str, Any], key: str) -> Any:
    """The class or function that `node` names."""
    path = node.get("_target_")
    if not path:
        raise UserError(key, dict(node), "has no _target_, so nothing would be built from it.", _leftover_fix(key))
    if not path.startswith(IMPORTABLE):
        problem = "is outside what a config may import."
        raise UserError(f"{key}._target_", path, problem, f"Allowed prefixes: {', '.join(IMPORTABLE)}")
    try:
        return get_object(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{key}._target_", path, "cannot be imported.", str(error).splitlines()[0]) from error


def check_arguments(target: Any, given: Mapping[str, Any], key: str, supplied: Set[str] = frozenset()) -> None:
    """Refuse arguments that `target` does not take, lacks, or would choke on later."""
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    for name, value in given.items():
        if name in parameters:
            _check_type(parameters[name].annotation, value, f"{key}.{name}")
        elif not takes_any:
            problem = f"is no option of {target.__name__}; it would have no effect."
            raise UserError(f"{key}.{name}", value, problem, nearest_hint(name, set(parameters) - supplied))
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        )
        if required and name not in given and name not in supplied:
            raise UserError(f"{key}.{name}", None, f"{target.__name__} needs it.", f"Set it: {key}.{name}=...")


def _check_type(annotation: Any, value: Any, key: str) -> None:
    """Only plain annotations are checked; everything else is the target's own business."""
    accepted = {"float": (int, float), "int": (int,), "bool": (bool,), "str": (str,)}
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    if name not in accepted:
        return
    wrong_bool = isinstance(value, bool) and name != "bool"
    if wrong_bool or not isinstance(value, accepted[name]):
        raise UserError(
            key, value, f"is {type(value).__name__}, not {name}.", f"Give a {name}, such as {_EXAMPLE[name]}"
        )


_EXAMPLE = {"float": "1.0e-3", "int": "8", "bool": "true", "str": "a name"}


def _leftover_fix(key: str) -> str:
    group, _, name = key.rpartition(".")
    if group == "loss.term":
        return f"Choose the term together with its options: 'loss/term=[ce,{name}]', or remove the override."
    return f"Choose an option of the group, or set {key}._target_=..."
