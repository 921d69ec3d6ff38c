"""Every file of conf/logger and conf/callbacks composes, and builds what it names with the options it offers."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import CSVLogger

from potstill.config.build import build
from potstill.config.paths import CONF
from potstill.tracking.logger import RunLogger, finish

FACTS = {"name": "first", "group": "digits", "job_type": "train"}


def composed(group: str, option: str, directory) -> Any:
    """One group as it looks in a training's config."""
    facts = {"run": {"dir": str(directory)}, "data": {"task": "causal_lm"}, "log_every": 10}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen = compose(f"{group}/{option}")
    resolved: Any = OmegaConf.to_container(OmegaConf.merge(facts, chosen), resolve=True)
    return resolved[group]


@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "callbacks").glob("*.yaml")))
def test_every_choice_of_callbacks_builds(option, tmp_path):
    nodes = composed("callbacks", option, tmp_path)
    callbacks = {name: build(node, f"callbacks.{name}") for name, node in nodes.items()}
    assert all(isinstance(callback, Callback) for callback in callbacks.values())
    assert isinstance(callbacks.get("early_stopping"), EarlyStopping) == (option == "early_stopping")
    assert ("best" in callbacks) == (option != "none")


@pytest.mark.parametrize(("option", "kind"), [("wandb", RunLogger), ("csv", CSVLogger)])
def test_every_choice_of_logger_builds(option, kind, tmp_path):
    node = composed("logger", option, tmp_path)
    logger = build(node, "logger", save_dir=str(tmp_path / "run"), **FACTS)
    finish([logger])
    assert isinstance(logger, kind)


def test_no_logger_is_null(tmp_path):
    assert composed("logger", "none", tmp_path) is None
