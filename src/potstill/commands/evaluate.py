"""potstill evaluate: teacher, student and baseline on test data, overall and by slice."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from transformers import PreTrainedModel

from potstill.commands.assemble import Source, assemble_source
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
from potstill.tracking import record
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
    source = assemble_source(config)
    models = {}
    if config.teacher.path:
        models["teacher"] = _under_test(load_teacher(config.teacher, source.task), source, config.teacher.path)
    for name, run in (("student", student_run), ("baseline", baseline_run)):
        if run is not None:
            _refuse_other_data(run, name, source.data.fingerprint)
            models[name] = _under_test(load_exported(run / "student", source.task), source, str(run / "student"))
    evaluation = evaluate(models, _test_set(source), source.task)
    write_json(output / "evaluation.json", evaluation)
    print_evaluation(evaluation)
    _log(evaluation, config, output, logger)
    log.info("\nWritten: %s", output / "evaluation.json")
    return evaluation


def _under_test(model: PreTrainedModel, source: Source, path: str) -> ModelUnderTest:
    order = None if source.label_names is None else label_order(model.config, source.label_names, path)
    return ModelUnderTest(model, path, order)


def _test_set(source: Source) -> EvaluationSet:
    data = source.data
    return EvaluationSet(
        batches=data.test_dataloader(),
        fingerprint=data.fingerprint,
        slice_values=data.slice_values("test"),
        scored_bytes=data.scored_bytes("test") if source.task.is_causal else None,
    )


def _refuse_other_data(run: Path, key: str, fingerprint: str) -> None:
    """A model may have been trained on what is test data here, unless its run split the same data the same way."""
    manifest = run / "manifest.json"
    if not manifest.exists() or not (run / "student").is_dir():
        fix = "Let it finish, or give another run's directory."
        raise UserError(key, str(run), "is not a training run that has come to its end.", fix)
    trained_on = json.loads(manifest.read_text())["fingerprints"]["data"]
    if trained_on != fingerprint:
        problem = f"was trained on other data, labels or splits ({trained_on[:12]}) than these ({fingerprint[:12]})."
        raise UserError(key, str(run), problem, "Train it again on this data, with the same seed and data options.")


def _log(evaluation: dict[str, Any], config: TrainConfig, output: Path, logger: dict[str, Any] | None) -> None:
    if not logger:
        return
    place = {"save_dir": str(output), "name": f"{output.name}-evaluate", "group": config.run.experiment}
    built = build(logger, "logger", **place, job_type="evaluate")
    loggers, status = with_metrics_file(built, str(output)), "failed"
    try:
        record.log_evaluation(loggers, evaluation)
        status = "finished"
    finally:
        finish(loggers, status)
