"""Start again from what an earlier run was given."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import OmegaConf

from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.errors import UserError
from potstill.nested import flat

log = logging.getLogger(__name__)


def read_config(run: Path, key: str = "run") -> TrainConfig:
    """The resolved config of a training run. Raises UserError where the directory holds none."""
    file = run / "config.yaml"
    if not file.is_file():
        fix = "Give the directory of a run, such as runs/train/2026-01-31_12-00-00"
        raise UserError(key, str(run.resolve()), "holds no config.yaml, so it is no training run.", fix)
    return typed(OmegaConf.create(file.read_text()), TrainConfig)  # type: ignore[arg-type]


def overrides_of(run: Path, key: str) -> list[str]:
    """The overrides that `run` was started with, its name and directory left out; warns where they mean less now.

    key: what the user gave `run` as; errors name it.
    """
    config = read_config(run, key)
    given = OmegaConf.to_container(OmegaConf.load(run / "overrides.yaml"))
    assert isinstance(given, list)
    overrides = [str(text) for text in given if not str(text).startswith("run.")]
    now = composed("train", overrides)
    now.run.dir = config.run.dir  # callbacks refer to it
    changed = sorted(differences(config, typed(now, TrainConfig)))
    if changed:
        log.warning("The config files have changed since %s. Not as they were: %s", run, ", ".join(changed))
    return overrides


def place_of(run: Path) -> list[str]:
    """Overrides that put a run where `run` is, under its name."""
    config = read_config(run)
    return [f"run.dir={run}", f"run.name={config.run.name}", f"run.experiment={config.run.experiment}"]


def differences(one: TrainConfig, other: TrainConfig) -> list[str]:
    """Keys on which two configs differ, the run's name and directory left out."""
    first, second = (
        flat(OmegaConf.to_container(OmegaConf.structured(one))),
        flat(OmegaConf.to_container(OmegaConf.structured(other))),
    )
    keys = {key for key in first.keys() | second.keys() if not key.startswith("run.")}
    return [key for key in keys if first.get(key) != second.get(key)]
