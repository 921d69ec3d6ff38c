"""potstill evaluate: teacher, student and baseline on test data, by slice, and the verdict that follows."""

from __future__ import annotations

import logging
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from potstill.commands.answers import plan_answers, write_answers
from potstill.commands.assemble import Source, assemble_source
from potstill.commands.audit_blocks import audit_blocks
from potstill.commands.frozen import check_runs, open_test_set, test_set
from potstill.commands.provenance import provenance
from potstill.commands.recording import logged
from potstill.commands.report import PAGE, write_report
from potstill.commands.seeds import read_seeds
from potstill.commands.tested import models_under_test
from potstill.config.compose import typed
from potstill.config.rerun import read_config
from potstill.config.schema import EvaluateConfig, TrainConfig
from potstill.errors import UserError
from potstill.evaluation.economics import break_even, when_not_to_distil
from potstill.evaluation.evaluate import Judged, judge
from potstill.evaluation.predict import ModelUnderTest
from potstill.evaluation.speed import measure_speed
from potstill.reporting.remote_report import log_report
from potstill.reporting.table import print_evaluation
from potstill.tracking import lineage, record
from potstill.tracking.machine import machine
from potstill.tracking.manifest import write_json, write_lines

log = logging.getLogger(__name__)


def main(config: DictConfig) -> int:
    """The exit code that the verdict stands for."""
    return evaluate_runs(typed(config, EvaluateConfig))["verdict"]["exit_code"]


def evaluate_runs(options: EvaluateConfig) -> dict[str, Any]:
    """Evaluate on the test split of the student's run; write, print and log what was found."""
    runs, output = find_runs(Path(options.run), options.baseline), Path(options.output)
    check_mixes(options.mixes)
    config = read_config(runs["run"])
    source = assemble_source(config)
    check_runs(runs, source.data)
    data = test_set(source, options.bar)
    seeds = read_seeds([Path(path) for path in options.seeds], data.manifest)
    models = models_under_test(config, runs, source, options)
    plan = plan_answers(options.generate, models, source)
    openings = open_test_set(options, config, runs, str(data.manifest))
    judged = judge(
        models,
        data,
        source.task,
        options.bar,
        seeds=seeds,
        seed=config.seed,
        blocks=partial(audit_blocks, source),
        generated=write_answers(plan, models, source),
    )
    evaluation = {
        **judged.report,
        "provenance": provenance(options, config, runs, source),
        "measured": measured(options, models, judged, source, openings),
    }
    write_lines(output / "items.jsonl", judged.items)
    write_json(output / "evaluation.json", evaluation)
    print_evaluation(evaluation)
    write_report(evaluation, runs["run"], output)
    _log(evaluation, config, source, output, options.logger)
    log.info("\nWritten: %s", output / "evaluation.json")
    return evaluation


def find_runs(run: Path, baseline: str | None) -> dict[str, Path]:
    """Training runs of the student, `run`, and of the baseline. `run` may be a recipe's directory, with stages of those
    names; of one with rounds the student is that of the last.
    """
    is_recipe = not (run / "config.yaml").exists() and (run / "student" / "config.yaml").exists()
    found = {"run": _latest(run) if is_recipe else run}
    if baseline is not None:
        return {**found, "baseline": Path(baseline)}
    has_own = is_recipe and (run / "baseline" / "config.yaml").exists()
    return {**found, "baseline": run / "baseline"} if has_own else found


def _latest(recipe: Path) -> Path:
    numbers = [path.name.removeprefix("student_") for path in recipe.glob("student_*") if (path / "student").is_dir()]
    rounds = [int(number) for number in numbers if number.isdigit()]  # not what was set aside
    return recipe / (f"student_{max(rounds)}" if rounds else "student")


def check_mixes(mixes: list[Any]) -> None:
    for mix in mixes:
        is_pair = isinstance(mix, list) and len(mix) == 2 and all(isinstance(each, int) and each > 0 for each in mix)
        if not is_pair:
            problem = "is no pair of examples a request and requests under way, whole numbers above zero."
            raise UserError("mixes", mix, problem, "For example: mixes=[[1,1],[8,4]]")


def measured(
    options: EvaluateConfig,
    models: dict[str, ModelUnderTest],
    judged: Judged,
    source: Source,
    openings: dict[str, Any],
) -> dict[str, Any]:
    """What is not the same twice: times, counts, this machine."""
    batches = list(source.data.test_dataloader())[:1]
    pays = break_even(options.bar.prices)
    return {
        **machine(),
        "openings": openings,
        "models": measure_speed(models, batches, source.task, options.mixes),
        "break_even": pays,
        "when_not_to_distil": when_not_to_distil(judged.report, pays),
    }


def _log(
    evaluation: dict[str, Any], config: TrainConfig, source: Source, output: Path, logger: dict[str, Any] | None
) -> None:
    """To W&B with the config of the student's training, so that evaluations are compared by what their runs are."""
    if not logger:
        return
    group = config.run.sweep or config.run.experiment
    with logged(logger, output, job_type="evaluate", name=f"{output.name}-evaluate", group=group) as loggers:
        record.log_config(loggers, asdict(config))
        models = [model["path"] for model in evaluation["models"].values()]
        lineage.log_inputs(loggers, source.data, config.data.source, models)
        record.log_evaluation(loggers, evaluation)
        log_report(loggers, evaluation, output / PAGE)
        lineage.log_evaluation_file(loggers, output / "evaluation.json")
