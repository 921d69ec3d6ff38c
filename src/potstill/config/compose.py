"""From a composed Hydra config to a typed one, with every complaint put into the user's words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from potstill.config import schema
from potstill.config.paths import CONF, groups
from potstill.errors import UserError, nearest_hint

Schema = TypeVar("Schema")

SCHEMAS = {"train": schema.TrainConfig, "evaluate": schema.EvaluateConfig, "run": schema.RecipeCommandConfig}

for _command, _schema in SCHEMAS.items():
    ConfigStore.instance().store(name=f"{_command}_schema", node=_schema)


def composed(command: str, overrides: Sequence[str]) -> DictConfig:
    """The config of `command` under `overrides`, inside or outside of a running Hydra job. Raises UserError."""
    try:
        if GlobalHydra.instance().is_initialized():
            return compose(command, overrides=list(overrides))
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(command, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError, AssertionError) as error:
        raise explain(error, command, overrides) from error


def typed(config: DictConfig, kind: type[Schema]) -> Schema:
    """`config` resolved and merged into its schema, so that a key added with `+` or a wrong type is refused."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), plain))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise _explain_value(error, OmegaConf.structured(kind)) from error


def explain(error: BaseException, command: str, overrides: Sequence[str]) -> UserError:
    """What Hydra or OmegaConf refused, as key, value, problem and fix."""
    message = str(error)
    if missing := re.search(r"Could not find '([^']+)'", message):
        return _explain_option(missing.group(1))
    if unknown := re.search(r"Could not override '([^']+)'", message):
        return _explain_key(unknown.group(1), command, overrides)
    if isinstance(error.__cause__, OmegaConfBaseException):
        return _explain_value(error.__cause__, OmegaConf.structured(SCHEMAS[command]), overrides)
    text = _first_line(message)
    guilty = next((given for given in overrides if _key_of(given) in message or given in message), "")
    key, _, value = guilty.partition("=")
    return UserError(key or "overrides", value or " ".join(overrides), text, "Write an override as key=value.")


def _explain_option(path: str) -> UserError:
    group, _, option = path.rpartition("/")
    problem = "is no option of this group." if group in groups() else "names no config."
    return UserError(group or path, option, problem, nearest_hint(option, groups().get(group, [])))


def _explain_key(key: str, command: str, overrides: Sequence[str]) -> UserError:
    value = next((given.partition("=")[2] for given in overrides if _key_of(given) == key), "")
    choices = [given for given in overrides if _key_of(given).split("@")[0] in groups()]
    known = list(_leaves(composed(command, choices)))
    names = [*known, *groups()]
    terms = {name.split(".")[2] for name in known if name.startswith("loss.term.")}
    if (leftover := re.match(r"loss\.term\.(\w+)", key)) and leftover.group(1) not in terms:
        problem = f"sets an option of a term that this loss does not have (it has {', '.join(sorted(terms))})."
        fix = (
            f"Choose the term with it, 'loss/term=[{','.join([*sorted(terms), leftover.group(1)])}]', or leave it out."
        )
        return UserError(key, value, problem, fix)
    fix = f"{nearest_hint_of(key, names)} List them: potstill {command} --cfg"
    return UserError(key, value, "is no key of the config; it would have no effect.", fix)


def nearest_hint_of(key: str, names: Iterable[str]) -> str:
    """As nearest_hint, but for dotted keys: siblings first, and never the whole list of keys."""
    names = list(names)
    parent = key.rpartition(".")[0]
    siblings = [name for name in names if name.rpartition(".")[0] == parent]
    for candidates in (siblings, names):
        hint = nearest_hint(key, candidates)
        if hint.startswith("Nearest"):
            return hint
    return nearest_hint(key, siblings[:12]) if siblings else nearest_hint(key, sorted({n.split(".")[0] for n in names}))


def _explain_value(error: OmegaConfBaseException, known: DictConfig, overrides: Sequence[str] = ()) -> UserError:
    key = error.full_key or str(error.key or "config")
    value = next((given.partition("=")[2] for given in overrides if _key_of(given) == key), None)
    text = _first_line(str(error.msg or error))
    if text.startswith(("Key ", "Missing mandatory")):
        fix = f"{nearest_hint_of(key, _leaves(known))}" if text.startswith("Key ") else f"Set it: {key}=..."
        return UserError(key, value, text, fix)
    return UserError(key, value, text, _type_fix(known, key))


def _type_fix(known: DictConfig, key: str) -> str:
    default = OmegaConf.select(known, key)
    return f"The default is {default!r}." if default is not None else "Give a value of the type named above."


def _leaves(config: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(config, DictConfig) and not config._is_none() and not config._is_missing():
        for name in config:
            yield f"{prefix}{name}"
            yield from _leaves(config._get_node(name), f"{prefix}{name}.")


def _key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "cannot be read."
