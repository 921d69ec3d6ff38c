"""Which data and models a run was made from. The real client, offline or with a server on this machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from potstill.tracking.lineage import log_evaluation_file, log_inputs, student_artifact
from potstill.tracking.logger import csv_logger, finish, wandb_logger
from potstill.tracking.record import log_student
from tests.data.examples import build, config, queries
from tests.wandb_log import read_back, read_records

from .artifact_server import ArtifactServer
from .wandb_server import told_of

SOURCE = {"_target_": "potstill.data.sources.files", "token": "abc"}


@pytest.fixture(scope="module")
def data() -> Any:
    return build({"train": queries(30), "validation": queries(9, 100), "test": queries(21, 200)}, config())


@pytest.fixture
def server() -> Iterator[ArtifactServer]:
    with told_of(ArtifactServer()) as server:
        yield server


def trained(run_dir: Path, data: Any, mode: str, *models: str | Path) -> Path:
    """A run of ours as far as lineage goes. Returns its student's directory."""
    logger = wandb_logger(str(run_dir), "run", None, "train", mode=mode, finish_timeout_s=20)
    log_inputs([logger], data, SOURCE, models)
    student = run_dir / "student"
    student.mkdir()
    (student / "model.safetensors").write_text(run_dir.name)
    log_student([logger], student)
    finish([logger])
    return student


def evaluated(run_dir: Path, data: Any, mode: str, *models: Path) -> str:
    (run_dir / "evaluation.json").write_text("{}")
    logger = wandb_logger(str(run_dir), "run", None, "evaluate", mode=mode, finish_timeout_s=20)
    log_inputs([logger], data, SOURCE, models)
    log_evaluation_file([logger], run_dir / "evaluation.json")
    finish([logger])
    return logger.experiment.id


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What potstill warned of. That W&B is offline is news, captured where another test has set the level."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("potstill") and record.levelno >= logging.WARNING
    ]


def id_of(student: Path) -> str:
    return json.loads((student.parent / "wandb/train.json").read_text())["id"]


@pytest.mark.slow
def test_online_the_chain_runs_from_the_data_over_teacher_and_student_to_the_evaluation(server, tmp_path, data, caplog):
    teacher = trained(tmp_path / "teacher", data, "online", "google/bert")
    student = trained(tmp_path / "student", data, "online", teacher)
    evaluation = evaluated(student.parent, data, "online", teacher, student)
    about, first, second = f"data-{data.fingerprint}", id_of(teacher), id_of(student)
    assert server.used == [
        (first, about),
        (second, about),
        (second, f"student-{first}"),
        (evaluation, about),
        (evaluation, f"student-{first}"),
        (evaluation, f"student-{second}"),
    ]
    models = {f"student-{first}": "model", f"student-{second}": "model"}
    assert server.artifacts == {about: "dataset", **models, f"evaluation-{evaluation}": "evaluation"}
    assert len(set(server.digests[about])) == 1, "equal data would be several versions"
    assert warnings_of(caplog) == []


@pytest.mark.slow
def test_a_teacher_that_was_never_uploaded_is_one_warning_and_stays_named(server, tmp_path, data, caplog):
    teacher = trained(tmp_path / "teacher", data, "offline")
    student = trained(tmp_path / "student", data, "online", teacher, teacher.parent / "elsewhere" / "student")
    [message] = warnings_of(caplog)
    assert f"student-{id_of(teacher)} (" in message
    assert server.used == [(id_of(student), f"data-{data.fingerprint}")]


@pytest.mark.slow
def test_a_server_that_is_gone_does_not_stop_the_run(server, tmp_path, data, caplog, monkeypatch):
    monkeypatch.setattr("potstill.tracking.lineage.MAX_WAIT_S", 1)
    monkeypatch.setattr("wandb.Api._HTTP_TIMEOUT", 1)  # seconds; the client would wait for 19
    logger = wandb_logger(str(tmp_path), "run", None, "train", mode="online", finish_timeout_s=1)
    server.kill()
    log_inputs([logger], data, SOURCE)
    finish([logger])
    assert f"data-{data.fingerprint}" in caplog.text


@pytest.mark.slow
def test_offline_the_config_names_what_the_run_could_not_link(tmp_path, data, caplog):
    teacher = trained(tmp_path / "teacher", data, "offline")
    student = trained(tmp_path / "student", data, "offline", str(teacher), teacher)
    about, first, second = f"data-{data.fingerprint}", id_of(teacher), id_of(student)
    run = read_back(tmp_path / "student")
    assert run["config"]["lineage"] == {"inputs": [about, f"student-{first}"], "outputs": [f"student-{second}"]}
    artifacts = {record["name"]: record for record in read_records(tmp_path / "student", "artifact")}
    assert {name: record["type"] for name, record in artifacts.items()} == {
        about: "dataset",
        f"student-{second}": "model",
    }
    [described] = artifacts[about]["manifest"]["contents"]
    facts = json.loads(Path(described["local_path"]).read_text())  # what a later `wandb sync` will read
    assert facts["fingerprint"] == data.fingerprint
    assert facts["num_examples"] == {"train": 30, "validation": 9, "test": 21}
    assert facts["source"]["token"] == "<hidden>"
    assert warnings_of(caplog) == []


@pytest.mark.slow
def test_a_run_that_goes_on_names_nothing_twice(tmp_path, data):
    student = trained(tmp_path / "run", data, "offline")
    run_id = id_of(student)
    logger = wandb_logger(str(tmp_path / "run"), "run", None, "train", mode="offline", resume_step=1)
    log_inputs([logger], data, SOURCE)
    log_inputs([logger], data, SOURCE)
    config = dict(logger.experiment.config)
    finish([logger])
    assert logger.experiment.id == run_id
    assert config["lineage"] == {"inputs": [f"data-{data.fingerprint}"], "outputs": []}


def test_only_students_of_our_runs_have_artifacts(tmp_path):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/train.json").write_text('{"id": null}')  # the client never answered
    names = [None, "google/bert", tmp_path / "student", tmp_path / "teacher", "student"]
    assert [student_artifact(name) for name in names] == [None] * 5


def test_other_loggers_are_passed_over(tmp_path, data):
    loggers = [csv_logger(str(tmp_path / "run"))]
    log_inputs(loggers, data, SOURCE)
    log_evaluation_file(loggers, tmp_path / "evaluation.json")
    assert not (tmp_path / "run" / "wandb").exists()
