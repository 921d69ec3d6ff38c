"""potstill train: compose, validate, build, fit, record."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source, make_module
from potstill.commands.check import check_parts
from potstill.commands.fit import fit, make_trainer
from potstill.commands.recording import recorded
from potstill.config.compose import typed
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate
from potstill.errors import UserError
from potstill.fingerprint import content_hash
from potstill.models.export import export
from potstill.tracking import record
from potstill.tracking.checkpoints import best_path
from potstill.tracking.manifest import manifest

log = logging.getLogger(__name__)


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

    made_from = teacher_fingerprint(config) if models.teacher else {}
    facts = manifest(
        seeds={"seed": config.seed},
        fingerprints={"data": source.data.fingerprint, **made_from},
        parents=list(made_from),
    )
    with recorded(config, overrides, facts) as loggers:
        trainer = make_trainer(config, loggers)
        facts["training"] = fit(trainer, module, source.data)
        export(models.student, best_path(trainer), source.tokenizer, run_dir / "student")
        metrics = trainer.validate(module, source.data, verbose=False)[0]
        summary = {name: float(value) for name, value in metrics.items()}
        record.log_summary(loggers, summary)
        record.log_student(loggers, run_dir / "student")
    log.info("Student: %s  (%s)", run_dir / "student", ", ".join(f"{k} {v:.4f}" for k, v in summary.items()))
    return summary["val/loss"]


def refuse_used(run_dir: Path) -> None:
    """A run never writes over another."""
    if (run_dir / "manifest.json").exists():
        fix = "Choose another directory, or leave run.dir out: every run then gets its own."
        raise UserError("run.dir", str(run_dir), "holds a run already.", fix)


def teacher_fingerprint(config: TrainConfig) -> dict[str, str]:
    """What the teacher is, by its path: the content of a local directory, or the revision of a hub name."""
    path = config.teacher.path
    if path is None:
        return {}
    return {path: content_hash(Path(path)) if Path(path).exists() else f"revision {config.teacher.revision}"}
