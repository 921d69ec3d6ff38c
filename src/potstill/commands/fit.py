"""The Lightning trainer of a config, and one fit that leaves as it should."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from potstill.commands.preflight import training_device
from potstill.commands.resume import Start
from potstill.config.build import build
from potstill.config.schema import TrainConfig
from potstill.data.module import DataModule
from potstill.hardware.place import Place
from potstill.hardware.strategy import make_strategy
from potstill.module import DistillationModule
from potstill.signals.cached import caches_within
from potstill.signals.remembered import RememberedTeacher
from potstill.signals.several import SeveralTeachers
from potstill.tracking.checkpoint_file import CheckpointFile
from potstill.tracking.checkpoints import trainer_switches
from potstill.tracking.interruption import StopAskedError, StopAtSignal
from potstill.tracking.memory import MemoryInCheckpoints, SignalsOnDisk
from potstill.tracking.no_profiler import NoProfiler
from potstill.tracking.trial import PruneTrial, open_trial

log = logging.getLogger(__name__)

# Lightning trips over a deprecation in torch 2.13.
warnings.filterwarnings("ignore", message="`isinstance.treespec, LeafSpec.` is deprecated", category=FutureWarning)

# Lightning's names. bfloat16 weights are the student's own affair: Lightning would convert projectors as well.
PRECISIONS = {"32": "32-true", "bf16-true": "32-true", "bf16-mixed": "bf16-mixed", "16-mixed": "16-mixed"}


def make_trainer(config: TrainConfig, module: DistillationModule, loggers: list[Logger], place: Place) -> pl.Trainer:
    callbacks = [build(node, f"callbacks.{name}") for name, node in _callbacks(config, module).items()]
    by_steps = config.validate_every is not None
    torch.set_float32_matmul_precision("high" if config.hardware.tf32 else "highest")
    return pl.Trainer(
        accelerator=config.hardware.accelerator,
        devices=config.hardware.devices,
        num_nodes=place.num_nodes,
        strategy=make_strategy(
            config.hardware.strategy,
            place.world_size,
            on_cpu=training_device(config.hardware.accelerator).type == "cpu",
            has_unused_parameters=bool(module.unused_parameters),
        ),
        precision=PRECISIONS[config.hardware.precision],  # type: ignore[arg-type]
        plugins=[CheckpointFile()],
        max_steps=config.optim.max_steps or -1,
        max_epochs=config.optim.max_epochs or -1,
        val_check_interval=config.validate_every,
        check_val_every_n_epoch=None if by_steps else 1,
        log_every_n_steps=config.log_every,
        logger=loggers or False,
        profiler=NoProfiler(),
        callbacks=[*callbacks, StopAtSignal(), *_memory(config, module), *_kept(module), *_pruning(config, place)],
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module gives each rank its share of a global batch
        enable_model_summary=False,
        **trainer_switches(callbacks),  # type: ignore[arg-type]
    )


def _callbacks(config: TrainConfig, module: DistillationModule) -> dict[str, Any]:
    """Those of the config, less those that would choose by a validation of what no term trains: the head."""
    if module.task.is_embedding or module.objective.needs_student.logits:
        return config.callbacks
    choosing = [name for name, node in config.callbacks.items() if node.get("monitor") == "auto"]
    for name in choosing:
        log.info(
            "callbacks.%s is left out, and the last weights are kept: no term of the loss reaches the student's head, "
            "by which it is validated. To choose all the same: callbacks.%s.monitor=val/accuracy",
            *(name, name),
        )
    return {name: node for name, node in config.callbacks.items() if name not in choosing}


def _memory(config: TrainConfig, module: DistillationModule) -> list[Callback]:
    """What is remembered goes with the run, unless teacher or data may be others than those of its checkpoint."""
    if not (config.teacher.remember and isinstance(module.teacher, RememberedTeacher | SeveralTeachers)):
        return []
    changed = {name.split(".")[0] for name in config.run.allow_changed}
    return [MemoryInCheckpoints(module.teacher, is_same=not changed & {"teacher", "data"})]


def _kept(module: DistillationModule) -> list[Callback]:
    """What is kept on disk is kept by the time of the checkpoint that it belongs to."""
    sources = list(caches_within(module.teacher))
    return [SignalsOnDisk(sources)] if sources else []


def _pruning(config: TrainConfig, place: Place) -> list[Callback]:
    """What ends a trial early, last in line: of a trial that is pruned, the validation is in the log and on disk."""
    if not config.run.trial or place.world_size > 1:  # on several ranks `check_trial` has refused a pruner
        return []
    trial = open_trial(config.run.trial)
    return [PruneTrial(trial, config.returns[0])] if trial.has_pruner else []


def fit(trainer: pl.Trainer, module: DistillationModule, data: DataModule, start: Start | None) -> dict[str, float]:
    """Train, going on from `start` where the run has one; returns what it took.

    A training that was asked to stop leaves as KeyboardInterrupt, its state saved.
    """
    began_at, first_step = time.perf_counter(), start.step if start else 0
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # to go on from it
            trainer.fit(module, data, ckpt_path=start.checkpoint if start else None, weights_only=True)
    except StopAskedError as error:
        raise KeyboardInterrupt from error
    except SystemExit as error:  # Lightning's way to leave at a second Ctrl-C
        if isinstance(error.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from error
        raise
    if module.agreed["stop"]:
        raise KeyboardInterrupt  # after the last step
    seconds, steps = time.perf_counter() - began_at, trainer.global_step
    epochs = (steps - first_step) / data.batches_per_epoch
    return {
        "steps": steps,
        "epochs": steps / data.batches_per_epoch,
        "seconds": seconds,
        "seconds_per_epoch": seconds / epochs if epochs else 0.0,
    }
