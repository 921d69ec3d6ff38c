"""Parts that need neither data nor models, built once and thrown away: what they refuse should cost no loading."""

from __future__ import annotations

import textwrap
from dataclasses import asdict

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]
from torch import nn

from potstill.config.build import build, check_arguments, locate
from potstill.config.schema import HardwareConfig, TrainConfig
from potstill.errors import UserError

PLACE = ("save_dir", "name", "group", "job_type")  # what a logger is told besides its own options


def check_parts(config: TrainConfig) -> None:
    """Raises UserError for a callback, a logger's option, an optimizer or hardware that cannot be had."""
    for name, node in config.callbacks.items():
        build(node, f"callbacks.{name}")
    if config.logger:
        options = {name: value for name, value in config.logger.items() if name != "_target_"}
        check_arguments(locate(config.logger, "logger"), options, "logger", supplied=set(PLACE))
    build(config.optim.optimizer, "optim.optimizer", params=[nn.Parameter(torch.zeros(1))])
    _check_hardware(config.hardware)


def _check_hardware(hardware: HardwareConfig) -> None:
    options = {name: asdict(hardware)[name] for name in ("accelerator", "devices", "strategy", "precision")}
    try:
        pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, **options)
    except (MisconfigurationException, ValueError, TypeError) as error:
        message = textwrap.shorten(str(error), 200)
        name = next((name for name, value in options.items() if f"'{value}'" in message), "accelerator")
        fix = "Works everywhere: hardware=cpu hardware.precision=32-true hardware.strategy=auto"
        raise UserError(f"hardware.{name}", options[name], f"cannot be had: {message}", fix) from error
