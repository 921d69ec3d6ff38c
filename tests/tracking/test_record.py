from __future__ import annotations

import json
import logging

import pytest
import wandb

from potstill.tracking.logger import csv_logger, finish
from potstill.tracking.record import (
    evaluation_summary,
    hoisted,
    log_config,
    log_evaluation,
    log_manifest,
    log_student,
    log_summary,
    slice_table,
    without_swept,
)
from tests.wandb_log import read_back, read_records, wandb_directories

CONFIG = {"seed": 0, "loss": {"term": {"kd": {"weight": 1.0}}}, "optim": {"optimizer": {"lr": 0.1, "betas": [0.9]}}}

EVALUATION = {
    "schema_version": 1,
    "task": "text_classification",
    "metric": "accuracy",
    "models": {
        "teacher": {
            "overall": {"n": 4, "accuracy": 0.95},
            "slices": {"domain=banking": {"n": 4, "accuracy": 0.95}},
            "cost": {"parameters": 200, "latency_ms_p50": 2.5},
        },
        "student": {
            "overall": {"n": 4, "accuracy": 0.9, "retention": 0.947},
            "slices": {
                "domain=banking": {"n": 4, "accuracy": 0.9, "retention": 0.947},
                "domain=empty": {"n": 0, "accuracy": None},
            },
            "cost": {"parameters": 100},
        },
    },
    "differences": {"student-baseline": {"metric": "accuracy", "value": 0.1, "interval": [0.05, 0.15], "n": 4}},
}


@pytest.mark.slow
def test_config_and_manifest_are_read_back_without_credentials(start, tmp_path):
    logger = start()
    log_config([logger], {**CONFIG, "endpoint": {"api_key": "abc"}})
    log_manifest([logger], {"status": "running", "versions": {"torch": "2"}})
    log_manifest([logger], {"status": "finished", "versions": {"torch": "2"}})
    finish([logger])
    config = read_back(tmp_path / "run")["config"]
    assert config["optim"] == CONFIG["optim"]
    assert config["endpoint"] == {"api_key": "<hidden>"}
    assert config["manifest"] == {"status": "finished", "versions": {"torch": "2"}}


# wandb 0.31, 2026-11: the client leaves the sweep's file open.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io.FileIO:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_swept_keys_are_left_to_the_sweep(start, tmp_path, monkeypatch, capfd):
    swept = "wandb_version: 1\noptim.optimizer.lr:\n  value: 0.5\nloss:\n  value: kd\n"
    (tmp_path / "sweep.yaml").write_text(swept)
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(tmp_path / "sweep.yaml"))
    wandb.teardown()  # the client reads the environment once
    logger = start()
    log_config([logger], CONFIG)
    finish([logger])
    wandb.teardown()
    config = read_back(tmp_path / "run")["config"]
    assert config["optim.optimizer.lr"] == 0.5
    assert config["optim"] == {"optimizer": {"betas": [0.9]}}
    assert config["loss"] == "kd"
    assert config["loss.term.kd.weight"] == 1.0
    assert "locked" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_what_tells_runs_apart_is_one_plain_column_each(start, tmp_path):
    logger = start()
    told_apart = {"swept": {"optim.optimizer.lr": 0.1, "seed": 0}, "choices": {"loss": "kd"}}
    log_config([logger], {**CONFIG, "run": {"sweep": "lr", "name": "3", **told_apart}})
    finish([logger])
    config = read_back(tmp_path / "run")["config"]
    assert {"swept": config["swept"], "choices": config["choices"]} == told_apart
    assert config["run"] == {"sweep": "lr", "name": "3"}
    assert config["optim"] == CONFIG["optim"]


def test_a_run_by_itself_has_no_empty_columns():
    config = {"seed": 0, "run": {"name": "a", "swept": {}, "choices": {"loss": "ce"}}}
    assert hoisted(config) == {"seed": 0, "run": {"name": "a"}, "choices": {"loss": "ce"}}
    assert hoisted(CONFIG) == CONFIG
    assert config["run"]["swept"] == {}


def test_leaving_out_swept_keys_changes_neither_the_config_nor_other_keys():
    assert without_swept(CONFIG, ["teacher.path", "seed.deeper", "optim.optimizer.momentum"]) == CONFIG
    assert "seed" not in without_swept(CONFIG, ["seed"])
    assert CONFIG["seed"] == 0


def test_the_evaluation_is_a_table_and_a_summary(start, tmp_path):
    logger = start()
    log_evaluation([logger], EVALUATION)
    finish([logger])
    summary = read_back(tmp_path / "run")["summary"]
    assert summary["evaluation/student/accuracy"] == 0.9
    assert summary["evaluation/difference/student-baseline/low"] == 0.05
    assert summary["evaluation/slices"]["nrows"] == 5
    [directory] = wandb_directories(tmp_path / "run")
    table = json.loads(next(directory.rglob("*.table.json")).read_text())
    assert table["columns"] == ["model", "slice", "n", "accuracy", "retention"]
    assert ["student", "domain=empty", 0, None, None] in table["data"]


def test_a_table_row_never_shifts_where_a_model_lacks_a_metric():
    columns, rows = slice_table(EVALUATION)
    assert rows[0] == ["teacher", "overall", 4, 0.95, None]
    assert all(len(row) == len(columns) for row in rows)


def test_the_summary_has_no_empty_numbers():
    evaluation = {
        "models": {"student": {"overall": {"n": 1, "accuracy": None}}},
        "differences": {"a-b": {"value": 0.1}},
    }
    assert evaluation_summary(evaluation) == {"evaluation/student/n": 1, "evaluation/difference/a-b": 0.1}


@pytest.fixture
def student(tmp_path):
    directory = tmp_path / "student"
    (directory / "tokenizer").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"w" * 2_000_000)
    (directory / "tokenizer" / "vocab.json").write_text("{}")
    return directory


@pytest.mark.slow
def test_the_student_is_an_artifact_with_all_its_files(start, tmp_path, student):
    logger = start()
    log_student([logger], student)
    finish([logger])
    [artifact] = read_records(tmp_path / "run", "artifact")
    assert artifact["type"] == "model"
    assert artifact["name"] == f"student-{logger.experiment.id}"
    paths = [content["path"] for content in artifact["manifest"]["contents"]]
    assert sorted(paths) == ["model.safetensors", "tokenizer/vocab.json"]


@pytest.mark.parametrize(("limit", "says"), [(1.9, True), (0, False)])
@pytest.mark.slow
def test_a_student_over_the_limit_stays_here(start, tmp_path, student, caplog, limit, says):
    logger = start(artifact_max_mb=limit)
    with caplog.at_level(logging.INFO, logger="potstill.tracking.record"):
        log_student([logger], student)
    finish([logger])
    assert read_records(tmp_path / "run", "artifact") == []
    assert ("logger.artifact_max_mb=1.9" in caplog.text) is says


def test_other_loggers_are_passed_over(tmp_path, student):
    loggers = [csv_logger(str(tmp_path / "run"))]
    log_config(loggers, CONFIG)
    log_manifest(loggers, {})
    log_summary(loggers, {"a": 1.0})
    log_evaluation(loggers, EVALUATION)
    log_student(loggers, student)
    finish(loggers)
    assert not (tmp_path / "run" / "wandb").exists()
