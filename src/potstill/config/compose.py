"""From a composed Hydra config to a typed one, with every complaint put into the user's words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from potstill.config import mine_schema, schema, text_schema
from potstill.config.explain import REFUSALS, explain, explain_value
from potstill.config.paths import CONF

Schema = TypeVar("Schema")

SCHEMAS = {
    "train": schema.TrainConfig,
    "cache": schema.TrainConfig,
    "evaluate": schema.EvaluateConfig,
    "run": schema.RecipeCommandConfig,
    "compare": schema.CompareConfig,
    "generate": text_schema.GenerateConfig,
    "audit": schema.AuditConfig,
    "mine": mine_schema.MineConfig,
    "gain": mine_schema.GainConfig,
}

for _command, _schema in SCHEMAS.items():
    ConfigStore.instance().store(name=f"{_command}_schema", node=_schema)


def composed(command: str, overrides: Sequence[str]) -> DictConfig:
    """The config of `command` under `overrides`, inside or outside of a running Hydra job. Raises UserError."""
    try:
        return compose_raw(command, overrides)
    except REFUSALS as error:
        raise refused(error, command, overrides) from error


def refused(error: BaseException, command: str, overrides: Sequence[str]) -> Exception:
    """The UserError for what Hydra raised at `overrides`."""
    return explain(error, command, overrides, compose_raw)


def typed(config: DictConfig, kind: type[Schema]) -> Schema:
    """`config` resolved and merged into its schema, so that a key added with `+` or a wrong type is refused."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), plain))  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise explain_value(error, OmegaConf.structured(kind), config) from error


def compose_raw(command: str, overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """What Hydra composes, or raises."""
    with initialised():
        return compose(command, overrides=list(overrides), return_hydra_config=with_hydra)


@contextmanager
def initialised() -> Iterator[None]:
    """Inside, Hydra knows `conf/`: by the job that is running, or by this."""
    if GlobalHydra.instance().is_initialized():
        yield
        return
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield
