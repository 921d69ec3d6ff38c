"""Parts that need neither data nor models, built once and thrown away: what they refuse should cost no loading."""

from __future__ import annotations

import logging
import textwrap
from dataclasses import asdict

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]
from torch import nn

from potstill.commands.preflight import training_device
from potstill.config.build import build, check_arguments, locate
from potstill.config.schema import HardwareConfig, TrainConfig
from potstill.errors import UserError
from potstill.hardware.place import Place, find_place, launched_place
from potstill.tracking.login import resolve_mode

# Lightning announces absent accelerators and its own products at INFO.
for _name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)

PLACE = ("save_dir", "name", "group", "job_type", "resume_step")  # what a logger is told besides its own options


def check_parts(config: TrainConfig) -> Place:
    """Where this process stands. UserError for a callback, logger option, optimizer or hardware that cannot be had."""
    for name, node in config.callbacks.items():
        build(node, f"callbacks.{name}")
    if config.logger:
        options = {name: value for name, value in config.logger.items() if name != "_target_"}
        check_arguments(locate(config.logger, "logger"), options, "logger", supplied=set(PLACE))
        resolve_mode(options.get("mode", "auto"))
    build(config.optim.optimizer, "optim.optimizer", params=[nn.Parameter(torch.zeros(1))])
    return find_place(_num_devices(config.hardware), config.hardware.num_nodes)


def _num_devices(hardware: HardwareConfig) -> int:
    """On this node, as Lightning counts them."""
    options = {name: asdict(hardware)[name] for name in ("accelerator", "devices", "precision")}
    if options["precision"] == "16-mixed" and training_device(hardware.accelerator).type == "cpu":
        problem = "is for accelerators: a CPU has no fast float16, and Lightning would take bfloat16 in silence."
        raise UserError("hardware.precision", "16-mixed", problem, "Set hardware.precision=bf16-mixed")
    if hardware.packed_attention == "flex" and training_device(hardware.accelerator).type == "cpu":
        problem = "is for accelerators: torch has no gradient of it on CPUs, where groups are faster anyway."
        raise UserError("hardware.packed_attention", "flex", problem, "Set hardware.packed_attention=groups")
    launched = launched_place()
    num_nodes = launched.num_nodes if launched else 1
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    try:
        return pl.Trainer(num_nodes=num_nodes, **quiet, **options).num_devices
    except (MisconfigurationException, ValueError, TypeError) as error:
        message = textwrap.shorten(str(error), 200)
        name = next((name for name, value in options.items() if f"'{value}'" in message), "accelerator")
        fix = "Works everywhere: hardware=cpu"
        raise UserError(f"hardware.{name}", options[name], f"cannot be had: {message}", fix) from error
