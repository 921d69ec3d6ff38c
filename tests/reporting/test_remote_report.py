"""The report in W&B, written by the real client offline and read back from its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from potstill.reporting.remote_report import log_report
from potstill.reporting.report import sections
from potstill.tracking.logger import csv_logger, finish
from tests.tracking.conftest import start, wandb_environment  # noqa: F401
from tests.wandb_log import read_back, wandb_directories

from .evaluated import evaluated


@pytest.mark.slow
def test_every_section_is_a_table_with_numbers_and_plots_are_charts(start: Callable, tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "report.html"
    page.write_text("<!doctype html><title>report</title>")
    logger = start()
    log_report([logger], evaluated(), page)
    finish([logger])
    summary = read_back(tmp_path / "run")["summary"]
    wanted = {f"report/{section.key}" for section in sections(evaluated()) if section.tables}
    assert wanted <= {name for name, value in summary.items() if "table-file" in str(value)}
    [directory] = wandb_directories(tmp_path / "run")
    tables = {file.name.partition("_")[0]: file for file in directory.rglob("slices_*.table.json")}
    table = json.loads(tables["slices"].read_text())
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert row["slice"] == "domain=out_of_scope"
    assert row["student"] == evaluated()["models"]["student"]["slices"]["domain=out_of_scope"]["accuracy"]
    assert summary["report/page"]["_type"] == "html-file"
    charts = {f"report/{name}/chart_table" for name in ("slices", "retention", "calibration", "coverage")}
    assert {name for name in summary if name.endswith("/chart_table")} == charts


def test_other_loggers_are_passed_over(tmp_path: Path) -> None:
    loggers = [csv_logger(str(tmp_path / "run"))]
    log_report(loggers, evaluated(), tmp_path / "none.html")
    finish(loggers)
    assert not (tmp_path / "run" / "wandb").exists()
