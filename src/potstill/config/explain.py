"""What Hydra or OmegaConf refused, in the user's words: key, value, problem, fix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from potstill.config.paths import groups
from potstill.errors import UserError, nearest, nearest_hint

Compose = Callable[[str, Sequence[str]], DictConfig]

# What Hydra raises at an override it cannot read or apply.
REFUSALS = (HydraException, OmegaConfBaseException, ValueError, AssertionError)

_PROBLEMS = {
    "could not be converted to Integer": "is not a whole number.",
    "could not be converted to Float": "is not a number.",
    "is not a valid bool": "is neither true nor false.",
    "not Optional": "must not be null.",
    "does not support deletion": "cannot be deleted, only changed.",
    "Unexpected type for root: NoneType": "is an option of something that is null.",
}
_EXTRAS = {  # launchers that are packages of their own, and the extra that brings each
    "joblib": "joblib",
    "submitit_local": "submitit",
    "submitit_slurm": "submitit",
    "ray": "ray",
    "ray_aws": "ray",
}
_MAX_LISTED = 12  # keys, where none comes near


def explain(error: BaseException, command: str, overrides: Sequence[str], compose: Compose) -> UserError:
    """compose: of a command and overrides, the config; raises where they are refused."""
    if fix := getattr(error, "fix", None):  # of a sweeper, in these words already
        return UserError(error.key, error.value, error.problem, fix)  # type: ignore[attr-defined]
    message = str(error)
    if missing := re.search(r"Could not find '([^']+)'", message):
        return _explain_option(missing.group(1))
    if unknown := re.search(r"Could not override '([^']+)'", message):
        return _explain_key(unknown.group(1), command, overrides, compose)
    key, value = _guilty(command, overrides, compose)
    if key in groups():
        return _explain_choice(key, value, command)
    if isinstance(error.__cause__, OmegaConfBaseException):
        return explain_value(error.__cause__, compose(command, []), value=value)
    text = _first_line(message)
    problem = _plain(text)
    if problem == text:
        return UserError(key, value, f"cannot be read: {text}", _readable_form(key, value))
    return UserError(key, value, problem, "Leave it out, or choose another option of its group.")


def explain_value(
    error: OmegaConfBaseException, known: DictConfig, given: DictConfig | None = None, value: Any = None
) -> UserError:
    """known: a config that has the keys there are; given: the one refused, to look the value up in."""
    key = error.full_key or str(error.key or "config")
    if given is not None:
        value = OmegaConf.select(given, key, throw_on_missing=False)
    text = _first_line(str(error.msg or error))
    if text.startswith("Missing mandatory"):
        return UserError(key, "???", "has no value yet, and needs one.", f"Set it: {key}=...")
    if text.startswith("Key "):
        return UserError(
            key, value, "is no key of the config; it would have no effect.", nearest_key(key, _keys(known))
        )
    return UserError(key, value, _plain(text), _example(known, key))


def nearest_key(key: str, keys: Iterable[str]) -> str:
    """As nearest_hint, but for dotted keys: by the last part among siblings first, and never the whole list of keys."""
    keys = list(keys)
    parent, _, leaf = key.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in keys if name.rpartition(".")[0] == parent}
    if match := nearest(leaf, siblings):
        return f"Nearest: '{siblings[match]}'."
    if match := nearest(key, keys) if not siblings or not parent else "":
        return f"Nearest: '{match}'."
    listed = list(siblings.values()) or sorted({name.split(".")[0] for name in keys})
    return f"There are: {', '.join(listed[:_MAX_LISTED])}{', ...' if len(listed) > _MAX_LISTED else ''}."


def _explain_option(path: str) -> UserError:
    group, _, option = path.rpartition("/")
    if option in _EXTRAS and group == "hydra/launcher":
        return UserError(group, option, "is not installed.", f"pip install 'potstill[{_EXTRAS[option]}]'")
    if group.startswith("hydra/"):
        there = [name.removesuffix(".yaml") for name in ConfigStore.instance().list(group)]
        return UserError(group, option, "is no option of this group.", nearest_hint(option, [*there, *_EXTRAS]))
    problem = "is no option of this group." if group in groups() else "names no config."
    return UserError(group or path, option, problem, nearest_hint(option, groups().get(group, groups())))


def _explain_choice(group: str, option: str, command: str) -> UserError:
    if option not in groups()[group]:
        return UserError(group, option, "is no option of this group.", nearest_hint(option, groups()[group]))
    others = [name for name in groups()[group] if name != option]
    problem = f"has options that potstill {command} does not: it is for another command."
    return UserError(group, option, problem, f"Choose another: {', '.join(others) or 'there is none'}.")


def _explain_key(key: str, command: str, overrides: Sequence[str], compose: Compose) -> UserError:
    value = next((given.partition("=")[2] for given in overrides if _key_of(given) == key), "")
    choices = [given for given in overrides if _key_of(given).split("@")[0] in groups() and _key_of(given) != key]
    known = list(_keys(compose(command, choices)))
    terms = sorted({name.split(".")[2] for name in known if name.startswith("loss.term.")})
    if (leftover := re.match(r"loss\.term\.(\w+)", key)) and leftover.group(1) not in terms:
        problem = f"sets an option of a term that this loss does not have (it has {', '.join(terms)})."
        return UserError(key, value, problem, _choose_term(leftover.group(1), terms))
    if command == "run" and key.split(".")[0] not in known:
        problem = "is no key of a recipe, but may be one of a stage."
        return UserError(key, value, problem, f"Give it to the stage: 'recipe.stages.STAGE.extra=[\"{key}={value}\"]'")
    fix = f"{nearest_key(key, known)} List them: potstill {command} --cfg"
    return UserError(key, value, "is no key of the config; it would have no effect.", fix)


def _choose_term(name: str, terms: Sequence[str]) -> str:
    if name not in groups()["loss/term"]:
        return nearest_hint(name, groups()["loss/term"])
    return f"Choose the term with it, 'loss/term=[{','.join([*terms, name])}]', or leave it out."


def _guilty(command: str, overrides: Sequence[str], compose: Compose) -> tuple[str, str]:
    """Key and value of the override without which the others compose; all of them where there is none such.

    A group's choice is the last to be suspected: without it, an option of what was chosen has no meaning either.
    """
    for given in sorted(overrides, key=lambda text: _key_of(text) in groups()):
        try:
            compose(command, [other for other in overrides if other != given])
        except REFUSALS:
            continue
        return _key_of(given), given.partition("=")[2]
    return "overrides", " ".join(overrides)


def _readable_form(key: str, value: str) -> str:
    if "{{" in value or "{%" in value:
        fix = "A template is quoted twice, for Hydra and for the shell"
        return f"{fix}: '{key}=\"{value}\"'" if not set("'\"") & set(value) else f"{fix}; best kept in a file."
    inside = value[1:-1]
    if value == f"[{inside}]" and "=" in inside and not set("[]{}'\"") & set(inside):
        quoted = ",".join(f'"{each.strip()}"' for each in inside.split(","))
        return f"What holds a = in a list is quoted: '{key}=[{quoted}]'"
    return "Write key=value; quote blanks and commas."


def _plain(text: str) -> str:
    return next((problem for pattern, problem in _PROBLEMS.items() if re.search(pattern, text)), text)


def _example(known: DictConfig, key: str) -> str:
    default = OmegaConf.select(known, key, throw_on_missing=False)
    return f"The default: {key}={default}" if default is not None else "Give such a value, or leave it out."


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, DictConfig) and not config._is_none() and not config._is_missing():
        for name in config:
            yield f"{prefix}{name}"
            yield from _keys(config._get_node(name), f"{prefix}{name}.")


def _key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason given."
