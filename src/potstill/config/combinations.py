"""What a multirun's overrides ask for, worked out before anything is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf

from potstill.config.compose import compose_raw, initialised, refused
from potstill.config.explain import REFUSALS
from potstill.errors import UserError

GRIDS = ("grid", "basic")  # sweepers whose jobs are all combinations


@dataclass(frozen=True)
class Combinations:
    """What a multirun's overrides ask for, before anything is run.

    directory: of the sweep. config: of the first job, resolved. keys: what varies. jobs: for each job the overrides of
    those keys; None where the sweeper decides on the way.
    """

    directory: Path
    sweeper: str
    config: dict[str, Any]
    keys: list[str]
    jobs: list[list[str]] | None


def combinations(command: str, overrides: Sequence[str]) -> Combinations:
    """Raises UserError where the first job's config cannot be composed."""
    try:
        with initialised():
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            given = parser.parse_overrides(list(overrides))
            fixed = {override.get_key_element() for override in given if not override.is_sweep_override()}
            config = compose_raw(command, _firsts(given), with_hydra=True)
            params = _flat_params(config.hydra.sweeper.get("params") or {})
            asked = [*parser.parse_overrides([f"{key}={value}" for key, value in params.items()]), *given]
            keys = [key for key in dict.fromkeys(map(Override.get_key_element, asked)) if key not in fixed]
            sweeper = str(config.hydra.runtime.choices["hydra/sweeper"])
            jobs = _jobs(asked, keys) if sweeper in GRIDS else None
            if jobs:
                config = compose_raw(command, [*_firsts(given), *jobs[0]], with_hydra=True)
    except UserError:
        raise
    except REFUSALS as error:
        raise refused(error, command, overrides) from error
    HydraConfig.instance().set_config(config)  # for what refers to ${hydra:...}
    directory = Path(config.hydra.sweep.dir).absolute()
    plain = {name: node for name, node in config.items() if name != "hydra"}
    resolved = OmegaConf.to_container(OmegaConf.create(plain), resolve=True)
    return Combinations(directory, sweeper, resolved, keys, jobs)  # type: ignore[arg-type]


def _firsts(overrides: Sequence[Override]) -> list[str]:
    """The overrides with one value each: of several, the first."""
    return [_first(override) for override in overrides]


def _first(override: Override) -> str:
    if not override.is_sweep_override():
        return str(override.input_line)
    value = override.value()
    first = value.start if isinstance(value, IntervalSweep) else next(override.sweep_string_iterator())
    return f"{override.get_key_element()}={first}"


def _jobs(overrides: list[Override], keys: list[str]) -> list[list[str]]:
    """Of every combination the overrides of `keys`."""
    for override in overrides:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            key, _, value = str(override.input_line).partition("=")
            problem = "is an interval: a grid has a job for every value, and that has no end of them."
            raise UserError(key, value, problem, "List the values, or search: hydra/sweeper=optuna")
    [jobs] = BasicSweeper.split_arguments(overrides, None)
    return [[text for text in job if text.partition("=")[0] in keys] for job in jobs]


def _flat_params(params: Any) -> dict[str, Any]:
    """The keys of a search space; those under a condition (`loss=dkd: {...}`) among them."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        flat |= _flat_params(value) if isinstance(value, DictConfig) else {key: value}
    return flat


def values_of(overrides: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and values of overrides with one value each, as Hydra reads them."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {override.get_key_element().lstrip("+"): override.value() for override in parsed}
