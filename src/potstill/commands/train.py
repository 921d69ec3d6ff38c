"""potstill train: compose, validate, build, fit, record."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from transformers import PreTrainedModel

from potstill.commands.assemble import (
    Models,
    Source,
    assemble_models,
    assemble_objective,
    assemble_source,
    make_module,
)
from potstill.commands.check import check_parts
from potstill.commands.fit import fit, make_trainer
from potstill.commands.licences import licence_records
from potstill.commands.preflight import explained, preflight, training_device
from potstill.commands.recording import recorded, write_config
from potstill.commands.resume import Start, check_resumable, check_same_data, last_saved, resume_command
from potstill.config.compose import typed
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate
from potstill.data import manifest as data_manifest
from potstill.errors import PrunedError, UserError
from potstill.evaluation.cost import latency_ms, model_bytes, num_parameters, single_examples
from potstill.fingerprint import content_hash
from potstill.generation.terms import RECORDS
from potstill.hardware.launch import launch
from potstill.hardware.place import Place, launched_place
from potstill.models.export import export
from potstill.tracking import lineage, record
from potstill.tracking.checkpoints import LAST, best_path
from potstill.tracking.manifest import manifest, manifest_of, resumed, write_json, write_lines
from potstill.tracking.trial import check_trial, open_trial

log = logging.getLogger(__name__)


def main(config: DictConfig) -> dict[str, float]:
    job = HydraConfig.get()
    _require_common_name(job.overrides.task)
    config.run.dir = job.runtime.output_dir  # of a multirun's job: a directory of its own, also for what refers to it
    chosen = {group: option for group, option in job.runtime.choices.items() if option and "hydra/" not in group}
    config.run.choices = chosen
    return train(typed(config, TrainConfig), list(job.overrides.task))


def train(config: TrainConfig, overrides: Sequence[str]) -> dict[str, float]:
    """Train one student into `config.run.dir`. Returns what its manifest calls metrics, of the weights kept."""
    validate(config)
    place = check_parts(config)
    if config.run.trial:
        check_trial(open_trial(config.run.trial), config.returns, place.world_size)
    run_dir = Path(config.run.dir)
    if place.rank > 0:
        logging.getLogger().setLevel(logging.ERROR)  # the first rank speaks for all
    refuse_unwritable(run_dir)
    if config.run.resume:
        check_resumable(config)
    elif place.rank == 0:
        refuse_used(run_dir)
    try:
        if place.has_to_launch:
            return launch_ranks(config, overrides, place)
        return train_here(config, overrides, place)
    except (UserError, PrunedError):
        raise  # the command that goes on would be refused as well, or is not wanted
    except BaseException:
        if (run_dir / "checkpoints" / LAST).exists():
            log.error("\nWhat was saved is kept; go on with:\n  %s", resume_command(run_dir))
        raise


def launch_ranks(config: TrainConfig, overrides: Sequence[str], place: Place) -> dict[str, float]:
    """Train `config` in `place.world_size` processes of this machine."""
    with tempfile.TemporaryDirectory(prefix="potstill-") as folder:
        write_config(config, overrides, Path(folder))  # all that a rank is told: it composes nothing anew
        launch(place.world_size, [sys.executable, "-m", "potstill.commands.rank", folder, *sys.argv])
    return manifest_of(Path(config.run.dir))["metrics"]


def train_here(config: TrainConfig, overrides: Sequence[str], place: Place) -> dict[str, float]:
    """Train in this process, as the rank that `place` says."""
    run_dir = Path(config.run.dir)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    with explained():
        objective = assemble_objective(config)
        source = assemble_source(config, labelled_only=objective.labelled_only)
        models = assemble_models(config, source, objective)
        cost = cost_of(config, models.student, source) if place.rank == 0 else {}
        module = make_module(config, source, models, objective, place.world_size)
    start = last_saved(run_dir) if config.run.resume else None

    facts = {**facts_of(config, source, models, start), "metrics": cost}
    facts["validated_on"] = source.data.validation_fingerprint
    with recorded(config, overrides, facts, start) as loggers:
        if place.rank == 0 and start is None:
            write_json(run_dir / data_manifest.FILE, source.data.manifest)
            if source.left_out:
                write_lines(run_dir / "left_out.jsonl", source.left_out)
        lineage.log_inputs(loggers, source.data, config.data.source, [*facts["parents"], config.student.path])
        before = preflight(config, module, source.data, place)
        trainer = make_trainer(config, module, loggers, place)
        with explained(before):
            facts["training"] = fit(trainer, module, source.data, start)
        sentence_length = config.data.max_length if source.task.is_embedding else None
        export(models.student, best_path(trainer), source.tokenizer, run_dir / "student", sentence_length)
        metrics = trainer.validate(module, source.data, verbose=False)[0]
        quality = {name: float(value) for name, value in metrics.items()}
        facts["metrics"] |= {**quality, "train/seconds": facts["training"]["seconds"]}
        record.log_summary(loggers, facts["metrics"])
        record.log_student(loggers, run_dir / "student")
    log.info("Student: %s  (%s)", run_dir / "student", ", ".join(f"{k} {v:.4f}" for k, v in quality.items()))
    return facts["metrics"]


def cost_of(config: TrainConfig, student: PreTrainedModel, source: Source) -> dict[str, float]:
    """What the student will cost to keep and to run, whatever it learns: `cost/...`, latency on this rank's device.

    No latency of a student that is going to be sharded: it may not fit on one device.
    """
    cost: dict[str, float] = {"parameters": num_parameters(student), "model_bytes": model_bytes(student)}
    if config.hardware.strategy != "fsdp":
        student.to(training_device(config.hardware.accelerator))  # type: ignore[arg-type]
        cost |= latency_ms(student, single_examples(source.data.val_dataloader()), source.task)
        student.to("cpu")  # type: ignore[arg-type]
    return {f"cost/{name}": value for name, value in cost.items()}


def _require_common_name(overrides: Sequence[str]) -> None:
    """Under torchrun and srun each process composes: names made of the time would be several."""
    place = launched_place()
    if place and place.world_size > 1 and not any(text.startswith(("run.name=", "run.dir=")) for text in overrides):
        problem = f"is made of the time, and each of {place.world_size} processes would make its own."
        raise UserError("run.name", None, problem, "Give one to all of them: run.name=NAME")


def facts_of(config: TrainConfig, source: Source, models: Models, start: Start | None) -> dict[str, Any]:
    """The open manifest. Of a run that goes on: its first one, after a look that data and teacher are the same."""
    made_from = teacher_fingerprint(config) if models.teacher else {}
    fingerprints = {"data": source.data.fingerprint, **made_from}
    if start and (before := manifest_of(Path(config.run.dir))):
        check_same_data(before["fingerprints"], fingerprints, config.run.allow_changed)
        return resumed(before, from_step=start.step)
    facts = manifest(seeds={"seed": config.seed}, fingerprints=fingerprints, parents=list(made_from))
    return {**facts, RECORDS: licence_records(config, source)}


def refuse_unwritable(run_dir: Path) -> None:
    """Now, and not at the first file, when data and models have been loaded."""
    if run_dir.exists() and not os.access(run_dir, os.W_OK):
        raise UserError("run.dir", str(run_dir), "cannot be written to.", "Make it writable, or choose another.")


def refuse_used(run_dir: Path) -> None:
    """A run never writes over another."""
    if (run_dir / "manifest.json").exists():
        fix = "Choose another directory, or leave run.dir out: every run then gets its own."
        raise UserError("run.dir", str(run_dir), "holds a run already.", fix)


def teacher_fingerprint(config: TrainConfig) -> dict[str, str]:
    """What each teacher is, by its path: the content of a local directory, or the revision of a hub name."""
    models = [model for model in config.teacher.models.values() if model.path]
    return {
        model.path: content_hash(Path(model.path)) if Path(model.path).exists() else f"revision {model.revision}"
        for model in models
    }
