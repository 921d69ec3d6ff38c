"""potstill audit: test items met in training, gaps of the transfer set, a teacher's errors, where a student fails."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from potstill.commands.audit_data import Part, parts_of, read_production, read_tables
from potstill.commands.audit_looks import (
    look_at_contamination,
    look_at_coverage,
    look_at_found_slices,
    look_at_teacher,
    right_of,
)
from potstill.commands.audit_models import predictions, run_under_audit
from potstill.commands.recording import logged
from potstill.config.compose import typed
from potstill.config.schema import AuditConfig, DataConfig
from potstill.config.validate import validate_data
from potstill.errors import UserError
from potstill.reporting.audit_table import print_audit
from potstill.reporting.audit_tables import csv_text, tables_of
from potstill.tracking import record
from potstill.tracking.manifest import write_json, write_text

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
# Of the data's config, what decides which texts are trained on
DECIDES_TEXTS = ("task", "source", "columns", "validation_fraction", "test_fraction", "drop_copies")


def main(config: DictConfig) -> None:
    options = typed(config, AuditConfig)
    check(options)
    audit = audit_of(options)
    output, tables = Path(options.output), tables_of(audit)
    write_json(output / "audit.json", audit)
    for name, rows in tables.items():
        write_text(output / f"{name}.csv", csv_text(name, rows))
    print_audit(audit)
    _log(tables, output, options.logger)
    log.info("\nWritten: %s, and beside it %s", output / "audit.json", ", ".join(f"{name}.csv" for name in tables))


def check(options: AuditConfig) -> None:
    """Raises UserError for what can be seen without reading any data."""
    if options.data is None and options.run is None:
        problem = "names no data, and there is no run whose data could be looked at."
        raise UserError("data", None, problem, "For example: potstill audit data=clinc150, or run=PATH")
    if options.data is not None:
        validate_data(options.data)
    if not 0 < options.jaccard <= 1:
        raise UserError("jaccard", options.jaccard, "is no similarity in (0, 1].", "For example: jaccard=0.8")
    if options.ngram is not None and options.ngram < 1:
        raise UserError("ngram", options.ngram, "is no number of words.", "For example: ngram=8")
    if options.production is not None and not Path(options.production).is_file():
        raise UserError("production", options.production, "is no file.", "Give a file such as the data's own.")


def audit_of(options: AuditConfig) -> dict[str, Any]:
    """What audit.json holds. JSON types; the same for the same data and models."""
    run = run_under_audit(Path(options.run)) if options.run else None
    data = options.data or (run and run.config.data)
    assert data is not None
    labelled = replace(data, slices=[*data.slices, options.teacher_label]) if options.teacher_label else data
    if run and run.is_classifier:
        tables, names, said = predictions(run, labelled)
    else:
        (tables, names), said = read_tables(labelled), {}
    parts = parts_of(tables, data.slices, names)
    told = parts_of(tables, [options.teacher_label], names) if options.teacher_label else {}
    right = right_of(said, parts["test"], names)
    trained_on = _trained_on(data, run.config.data) if run else {}
    sample, known = (read_production(options.production, data), {}) if options.production else (parts["test"], right)
    return {
        "schema_version": SCHEMA_VERSION,
        "task": data.task,
        "run": options.run,
        "splits": {split: len(part.texts) for split, part in (parts | trained_on).items()},
        "contamination": look_at_contamination(
            {**parts, **trained_on}, right, threshold=options.jaccard, ngram=options.ngram
        ),
        "coverage": look_at_coverage(trained_on.get("transfer", parts["train"]), sample, known, options.encoder),
        "teacher_quality": look_at_teacher(parts, said, told, names),
        "found_slices": look_at_found_slices(right, parts["test"]),
    }


def _trained_on(data: DataConfig, own: DataConfig) -> dict[str, Part]:
    """What the run learned from, where that is not the training set under audit."""
    if all(getattr(own, name) == getattr(data, name) for name in DECIDES_TEXTS):
        return {}
    tables, names = read_tables(own)
    return {"transfer": parts_of({"train": tables["train"]}, own.slices, names)["train"]}


def _log(tables: dict[str, list[dict[str, Any]]], output: Path, logger: dict[str, Any] | None) -> None:
    if not logger:
        return
    with logged(logger, output, job_type="audit", group="audit") as loggers:
        record.log_tables(loggers, {f"audit/{name}": rows for name, rows in tables.items()})
