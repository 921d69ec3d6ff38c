"""potstill train: compose, validate, build, fit, record."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source, make_module
from potstill.commands.check import check_parts
from potstill.config.build import build
from potstill.config.compose import typed
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate
from potstill.data.module import DataModule
from potstill.errors import UserError
from potstill.models.export import export
from potstill.module import DistillationModule
from potstill.objective import NonFiniteLossError
from potstill.tracking import record
from potstill.tracking.checkpoints import best_path, trainer_switches
from potstill.tracking.logger import finish, with_metrics_file
from potstill.tracking.manifest import closed, manifest, write_json, write_text
from potstill.tracking.secrets import redact

log = logging.getLogger(__name__)

# Lightning announces absent accelerators and its own products at INFO, and trips over a deprecation in torch 2.13.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
warnings.filterwarnings("ignore", message="`isinstance.treespec, LeafSpec.` is deprecated", category=FutureWarning)


def main(config: DictConfig) -> float:
    job = HydraConfig.get()
    config.run.dir = job.runtime.output_dir  # of a multirun's job: a directory of its own, also for what refers to it
    return train(typed(config, TrainConfig), list(job.overrides.task))


def train(config: TrainConfig, overrides: Sequence[str]) -> float:
    """Train one student into `config.run.dir`. Returns the kept weights' validation loss, in nats per row."""
    validate(config)
    run_dir = Path(config.run.dir)
    refuse_used(run_dir)
    check_parts(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    objective = assemble_objective(config)
    source = assemble_source(config, labelled_only=objective.labelled_only)
    models = assemble_models(config, source, objective)
    module = make_module(config, source, models, objective)

    facts = manifest(
        seeds={"seed": config.seed},
        fingerprints={"data": source.data.fingerprint},
        parents=[config.teacher.path] if models.teacher and config.teacher.path else [],
    )
    loggers, status = make_loggers(config, run_dir), "failed"
    try:
        write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(redact(asdict(config)))))
        write_text(run_dir / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(redact(list(overrides)))))
        write_json(run_dir / "manifest.json", facts)
        record.log_config(loggers, asdict(config))
        record.log_manifest(loggers, facts)
        trainer = make_trainer(config, loggers)
        facts["training"] = fit(trainer, module, source.data)
        export(models.student, best_path(trainer), source.tokenizer, run_dir / "student")
        summary = {
            name: float(value) for name, value in trainer.validate(module, source.data, verbose=False)[0].items()
        }
        record.log_summary(loggers, summary)
        record.log_student(loggers, run_dir / "student")
        status = "finished"
    except NonFiniteLossError:
        status = "diverged"
        raise
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        facts = closed(facts, status)
        write_json(run_dir / "manifest.json", facts)
        record.log_manifest(loggers, facts)
        finish(loggers, status)
    log.info("Student: %s  (%s)", run_dir / "student", ", ".join(f"{k} {v:.4f}" for k, v in summary.items()))
    return summary["val/loss"]


def refuse_used(run_dir: Path) -> None:
    """A run never writes over another."""
    if (run_dir / "manifest.json").exists():
        fix = "Choose another directory, or leave run.dir out: every run then gets its own."
        raise UserError("run.dir", str(run_dir), "holds a run already.", fix)


def make_loggers(config: TrainConfig, run_dir: Path) -> list[Logger]:
    if not config.logger:
        return []
    place = {"save_dir": str(run_dir), "name": config.run.name, "group": config.run.experiment, "job_type": "train"}
    return with_metrics_file(build(config.logger, "logger", **place), str(run_dir))


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
