"""The Lightning trainer of a config, and one fit that leaves as it should."""

from __future__ import annotations

import logging
import signal
import time
import warnings

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from potstill.config.build import build
from potstill.config.schema import TrainConfig
from potstill.data.module import DataModule
from potstill.module import DistillationModule
from potstill.tracking.checkpoints import trainer_switches

# Lightning announces absent accelerators and its own products at INFO, and trips over a deprecation in torch 2.13.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="`isinstance.treespec, LeafSpec.` is deprecated", category=FutureWarning)


def make_trainer(config: TrainConfig, loggers: list[Logger]) -> pl.Trainer:
    callbacks = [build(node, f"callbacks.{name}") for name, node in config.callbacks.items()]
    by_steps = config.validate_every is not None
    return pl.Trainer(
        accelerator=config.hardware.accelerator,
        devices=config.hardware.devices,
        strategy=config.hardware.strategy,
        precision=config.hardware.precision,  # type: ignore[arg-type]
        max_steps=config.optim.max_steps or -1,
        max_epochs=config.optim.max_epochs or -1,
        val_check_interval=config.validate_every,
        check_val_every_n_epoch=None if by_steps else 1,
        log_every_n_steps=config.log_every,
        logger=loggers or False,
        callbacks=callbacks,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module gives each rank its share of a global batch
        enable_model_summary=False,
        **trainer_switches(callbacks),  # type: ignore[arg-type]
    )


def fit(trainer: pl.Trainer, module: DistillationModule, data: DataModule) -> dict[str, float]:
    """Train; returns what it took. Ctrl-C leaves as KeyboardInterrupt, which Lightning would turn into exit code 1."""
    start = time.perf_counter()
    try:
        trainer.fit(module, data)
    except SystemExit as error:
        if trainer.interrupted:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from error
        raise
    seconds, epochs = time.perf_counter() - start, trainer.global_step / data.batches_per_epoch
    return {"steps": trainer.global_step, "epochs": epochs, "seconds": seconds, "seconds_per_epoch": seconds / epochs}
