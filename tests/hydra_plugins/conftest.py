"""Small applications of Hydra's under the Optuna sweeper: no model, no potstill."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from hydra_plugins.potstill_optuna._space import Space, read_space
from hydra_plugins.potstill_optuna._study import open_storage

CONFIG = """
defaults:
  - _self_
  - loss: kd
  - override hydra/sweeper: optuna
  - override hydra/hydra_logging: none
  - override hydra/job_logging: none
x: 0.5
n: 1
hydra:
  output_subdir: null
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A folder of config: numbers `x` and `n`, a group `loss` of `kd` (with `temperature`) and `dkd` (`weight`)."""
    folder = tmp_path / "conf"
    (folder / "loss").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "loss" / "kd.yaml").write_text("temperature: 1.0\n")
    (folder / "loss" / "dkd.yaml").write_text("weight: 1.0\n")
    return folder


@pytest.fixture
def sweep(
    tmp_path: Path, conf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Callable[..., optuna.Study]:
    """Run a task under the sweeper in this process, and return its study: `sweep(lambda cfg: cfg.x, "x=1,2")`.

    directory: of the sweep, below the test's own. params: the space, as YAML has it.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", sys.argv)
    caplog.set_level(logging.INFO)

    def run(
        task: Callable[..., Any],
        *arguments: str,
        directory: str = "sweep",
        params: str = "",
        num_trials: int | None = 4,
    ) -> optuna.Study:
        if params:
            (conf / "search").mkdir(exist_ok=True)
            (conf / "search" / "space.yaml").write_text(f"# @package hydra.sweeper\nparams:\n{params}")
            arguments = ("+search=space", *arguments)
        if num_trials is not None:
            arguments = (f"hydra.sweeper.num_trials={num_trials}", *arguments)
        sys.argv = ["app", "-m", "hydra.sweep.dir='" + directory.replace("'", "\\'") + "'", *arguments]
        try:
            hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(task)()
        finally:
            GlobalHydra.instance().clear()
        name = next((text.partition("=")[2] for text in arguments if "study_name=" in text), Path(directory).name)
        storage = next(
            (text.partition("=")[2] for text in arguments if "storage=" in text), f"{directory}/study.journal"
        )
        return optuna.load_study(study_name=name, storage=open_storage(storage))

    return run


@pytest.fixture
def space() -> Callable[..., Space]:
    """The space of `params` and of arguments of the command line."""
    parser = OverridesParser.create()
    return lambda params=None, *arguments: read_space(params or {}, arguments, parser)
