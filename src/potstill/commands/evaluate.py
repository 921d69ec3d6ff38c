"""potstill evaluate: teacher, student and baseline on test data, overall and by slice."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from transformers import PreTrainedModel

from potstill.commands.assemble import Source, assemble_source, check_tokenizers
from potstill.commands.several import several
from potstill.config.build import build
from potstill.config.compose import typed
from potstill.config.rerun import read_config
from potstill.config.schema import EvaluateConfig, TrainConfig
from potstill.errors import UserError
from potstill.evaluation.evaluate import EvaluationSet, ModelUnderTest, evaluate
from potstill.models.export import load_exported
from potstill.models.labels import label_order
from potstill.models.load import load_teacher
from potstill.reporting.table import print_evaluation
from potstill.signals.live import LiveTeacher
from potstill.tracking import lineage, record
from potstill.tracking.logger import finish, with_metrics_file
from potstill.tracking.manifest import write_json

log = logging.getLogger(__name__)


def main(config: DictConfig) -> None:
    options = typed(config, EvaluateConfig)
    student_run, baseline_run = find_runs(Path(options.run), options.baseline)
    evaluate_runs(student_run, baseline_run, Path(options.output), options.logger)


def find_runs(run: Path, baseline: str | None) -> tuple[Path, Path | None]:
    """Student's and baseline's training runs. `run` may be a recipe's directory, which has stages of those names."""
    is_recipe = not (run / "config.yaml").exists() and (run / "student" / "config.yaml").exists()
    if is_recipe and baseline is None and (run / "baseline" / "config.yaml").exists():
        return run / "student", run / "baseline"
    return (run / "student" if is_recipe else run), (Path(baseline) if baseline else None)


def evaluate_runs(
    student_run: Path, baseline_run: Path | None, output: Path, logger: dict[str, Any] | None
) -> dict[str, Any]:
    """Evaluate on the test split of the student's run; write `output/evaluation.json`, print and log the tables."""
    config = read_config(student_run)
    runs = {"run": student_run} | ({"baseline": baseline_run} if baseline_run else {})
    for key, run in runs.items():
        _refuse_unfinished(run, key)
    source = assemble_source(config)
    for key, run in runs.items():
        _refuse_other_data(run, key, source.data.fingerprint)
    evaluation = evaluate(_models(config, runs, source), _test_set(source), source.task)
    write_json(output / "evaluation.json", evaluation)
    print_evaluation(evaluation)
    _log(evaluation, config, source, output, logger)
    log.info("\nWritten: %s", output / "evaluation.json")
    return evaluation


def _models(config: TrainConfig, runs: dict[str, Path], source: Source) -> dict[str, ModelUnderTest]:
    models = _teachers(config, source)
    for key, run in runs.items():
        student = load_exported(run / "student", source.task)
        models["student" if key == "run" else key] = _under_test(student, config, source, key, str(run / "student"))
    return models


def _teachers(config: TrainConfig, source: Source) -> dict[str, ModelUnderTest]:
    """The teacher. Of several, what they say together, `teacher`, and each alone, `teacher/<name>`."""
    check_tokenizers(config, source)
    tested = {}
    for key, options in config.teacher.models.items():
        if options.path:
            model = load_teacher(options, source.task, tokenizer=source.tokenizer, who=key)
            tested[key] = _under_test(model, config, source, f"{key}.path", options.path)
    if not config.teacher.members:
        return tested
    sources = {key: LiveTeacher(each.model, source.task, each.label_order) for key, each in tested.items()}  # type: ignore[arg-type]
    # of losses that are averaged, the mean of the distributions is what a student of them all tends to
    combine = "probabilities" if config.teacher.combine == "losses" else config.teacher.combine
    together = several(config, source, sources, split="test", combine=combine)
    alone = {f"teacher/{key.rpartition('.')[2]}": each for key, each in tested.items()}
    return {"teacher": ModelUnderTest(together.model, source=together), **alone}


def _under_test(model: PreTrainedModel, config: TrainConfig, source: Source, key: str, path: str) -> ModelUnderTest:
    """The model where the student was trained, its columns matched to the data's labels."""
    order = None if source.label_names is None else label_order(model.config, source.label_names, key)
    accelerator = torch.accelerator.current_accelerator() if config.hardware.accelerator != "cpu" else None
    return ModelUnderTest(model.to(accelerator or torch.device("cpu")), path, order)  # type: ignore[arg-type]


def _test_set(source: Source) -> EvaluationSet:
    data = source.data
    return EvaluationSet(
        batches=data.test_dataloader(),
        fingerprint=data.fingerprint,
        slice_values=data.slice_values("test"),
        scored_bytes=data.scored_bytes("test") if source.task.is_causal else None,
    )


def _refuse_unfinished(run: Path, key: str) -> None:
    if not (run / "manifest.json").exists() or not (run / "student").is_dir():
        fix = "Let it finish, or give another run's directory."
        raise UserError(key, str(run), "is not a training run that has come to its end.", fix)


def _refuse_other_data(run: Path, key: str, fingerprint: str) -> None:
    """A model may have been trained on what is test data here, unless its run split the same data the same way."""
    trained_on = json.loads((run / "manifest.json").read_text())["fingerprints"]["data"]
    if trained_on != fingerprint:
        problem = f"was trained on other data, labels or splits ({trained_on[:12]}) than these ({fingerprint[:12]})."
        raise UserError(key, str(run), problem, "Train it again on this data, with the same seed and data options.")


def _log(
    evaluation: dict[str, Any], config: TrainConfig, source: Source, output: Path, logger: dict[str, Any] | None
) -> None:
    """To W&B with the config of the student's training, so that evaluations are compared by what their runs are."""
    if not logger:
        return
    group = config.run.sweep or config.run.experiment
    place = {"save_dir": str(output.absolute()), "name": f"{output.name}-evaluate", "group": group}
    built = build(logger, "logger", **place, job_type="evaluate")
    loggers, status = with_metrics_file(built, str(output)), "failed"
    try:
        record.log_config(loggers, asdict(config))
        models = [model["path"] for model in evaluation["models"].values()]
        lineage.log_inputs(loggers, source.data, config.data.source, models)
        record.log_evaluation(loggers, evaluation)
        lineage.log_evaluation_file(loggers, output / "evaluation.json")
        status = "finished"
    finally:
        finish(loggers, status)
