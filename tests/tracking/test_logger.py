from __future__ import annotations

import logging
import math
import os
import sys
from pathlib import Path

import pytest
import wandb

from potstill.errors import UserError
from potstill.tracking.logger import best_before, best_of, csv_logger, finish, wandb_logger, with_metrics_file
from potstill.tracking.record import log_evaluation, log_summary
from tests.wandb_log import read_back, read_records, wandb_directories

from .conftest import TinyModule, fit


def test_metrics_of_a_training_are_read_back_by_the_clients_own_reader(start, tmp_path):
    logger = start(tags=["first", "tiny"])
    fit(TinyModule(), logger=logger)
    log_summary([logger], {"cost/parameters": 1})
    finish([logger])

    run = read_back(tmp_path / "run")
    assert (run["state"], run["exit_code"], run["project"], run["name"]) == ("finished", 0, "potstill", "run")
    assert run["tags"] == ["first", "tiny"]
    assert run["summary"]["val/accuracy"] == pytest.approx(0.7)
    assert run["summary"]["cost/parameters"] == 1
    assert run["summary"]["status"] == "finished"
    [start_record] = read_records(tmp_path / "run", "run")
    assert (start_record["run_group"], start_record["job_type"]) == ("digits", "train")


@pytest.mark.slow
def test_every_metric_is_drawn_over_the_trainers_step(start, tmp_path):
    logger = start()
    fit(TinyModule(), logger=logger)
    finish([logger])

    history = [record["item"] for record in read_records(tmp_path / "run", "history")]
    assert [item["trainer/global_step"] for item in history if "train/loss" in item] == [0, 1, 2, 3, 4, 5]
    metrics = read_records(tmp_path / "run", "metric")
    assert any(m.get("glob_name") == "*" and m.get("step_metric") == "trainer/global_step" for m in metrics)


@pytest.mark.slow
def test_the_best_of_the_training_stands_beside_the_number_of_the_kept_weights(start, tmp_path):
    logger = start()
    fit(TinyModule(), logger=logger)
    log_summary([logger], {"val/accuracy": 0.9, "val/loss": 0.5})  # kept for their accuracy
    finish([logger])
    summary = read_back(tmp_path / "run")["summary"]
    assert (summary["val/accuracy"], summary["best/val/accuracy"]) == (0.9, pytest.approx(0.9))
    assert (summary["val/loss"], summary["best/val/loss"]) == (0.5, pytest.approx(1 / 3))


@pytest.mark.slow
def test_a_run_that_goes_on_forgets_no_best(start, tmp_path):
    header, kept, trained_again = "step,train/loss,val/accuracy", "1,,0.9", "4,,0.99"
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.csv").write_text("\n".join([header, "0,0.1,", kept, trained_again, ""]))
    logger = start(resume_step=2)
    logger.log_metrics({"val/accuracy": 0.7}, 2)
    finish([logger])
    summary = read_back(tmp_path / "run")["summary"]
    assert (summary["val/accuracy"], summary["best/val/accuracy"]) == (0.7, 0.9)
    assert best_before(tmp_path / "run", None) == {}


def test_what_is_not_finite_is_never_the_best():
    assert best_of({}, {"val/loss": math.nan, "val/accuracy": 0.5}) == {"val/accuracy": 0.5}
    assert best_of({"val/loss": 1.0}, {"val/loss": math.nan, "train/loss": 0.0}) == {"val/loss": 1.0}
    assert (
        best_of({"val/loss": 1.0, "val/accuracy": 0.5}, {"val/loss": 2.0, "val/accuracy": 0.6})["val/accuracy"] == 0.6
    )


@pytest.mark.slow
def test_two_jobs_in_one_process_do_not_share_a_run(start, tmp_path):
    first, second = start("first"), start("second")  # the first is still open, as after a job that broke
    log_summary([first], {"value": 1})
    log_summary([second], {"value": 2})
    finish([first], "failed")
    finish([second])

    runs = [read_back(tmp_path / name) for name in ("first", "second")]
    assert [run["summary"]["value"] for run in runs] == [1, 2]
    assert runs[0]["run_id"] != runs[1]["run_id"]
    assert [run["exit_code"] for run in runs] == [1, 0]


@pytest.mark.slow
def test_a_diverged_trial_is_recorded_as_such_and_not_as_a_crash(start, tmp_path):
    logger = start()
    finish([logger], "diverged")
    run = read_back(tmp_path / "run")
    assert (run["summary"]["status"], run["exit_code"]) == ("diverged", 0)


@pytest.mark.slow
def test_offline_says_in_one_line_how_to_view_and_upload(tmp_path, caplog, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, logger="potstill"):
        finish([wandb_logger(str(tmp_path / "run"), "run", None, "train")])
    directory = wandb_directories(tmp_path / "run")[0].relative_to(tmp_path)
    [message] = [record.getMessage() for record in caplog.records if record.name.startswith("potstill")]
    assert f"wandb leet {directory} " in message
    assert message.endswith(f"wandb sync {directory}")
    assert "wandb:" not in "".join(capfd.readouterr())


def test_a_disabled_run_writes_nothing_and_breaks_nothing(tmp_path):
    logger = wandb_logger(str(tmp_path / "run"), "run", None, "train", mode="disabled")
    fit(TinyModule(), logger=logger)
    finish([logger])
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.slow
def test_wandb_files_stay_in_the_run_directory(start, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finish([start("runs/a")])
    assert wandb_directories(tmp_path / "runs/a")
    assert not (tmp_path / "wandb").exists()


def test_the_mode_of_the_environment_is_not_changed_for_the_next_job(start):
    finish([start()])
    assert "WANDB_MODE" not in os.environ
    assert wandb.run is None


@pytest.mark.slow
def test_a_credential_on_the_command_line_reaches_no_file_of_the_run(start, tmp_path, monkeypatch):
    secret = "hf_" + "x1" * 12
    monkeypatch.setattr(sys, "argv", ["potstill", "train", f"teacher.token={secret}"])
    finish([start()])
    written = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert secret.encode() not in written


@pytest.mark.slow
def test_the_command_line_is_kept_where_it_holds_no_credential(start, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["potstill", "train", "seed=3"])
    finish([start()])
    assert any(record.get("args") == ["train", "seed=3"] for record in read_records(tmp_path / "run", "environment"))


def test_a_bad_key_is_the_users_to_mend(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(UserError, match=r"logger\.mode='online'[\s\S]*logger\.mode=offline"):
        wandb_logger(str(tmp_path), "run", None, "train")


def test_csv_replaces_an_earlier_file_without_a_warning(tmp_path):
    Path(tmp_path / "config.yaml").write_text("seed: 0\n")
    Path(tmp_path / "metrics.csv").write_text("old\n")
    fit(TinyModule(), logger=csv_logger(str(tmp_path)))
    header, *rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert {"step", "train/loss", "val/accuracy"} <= set(header.split(","))
    assert len(rows) == 9  # 6 steps, 3 validations
    assert (tmp_path / "config.yaml").exists()


def test_an_evaluation_leaves_the_metrics_of_the_training(tmp_path):
    fit(TinyModule(), logger=csv_logger(str(tmp_path)))
    before = (tmp_path / "metrics.csv").read_text()
    loggers = [csv_logger(str(tmp_path))]
    log_evaluation(loggers, {"models": {"student": {"overall": {"n": 1, "accuracy": 0.9}}}})
    finish(loggers)
    assert (tmp_path / "metrics.csv").read_text() == before


@pytest.mark.slow
def test_a_run_directory_has_its_metrics_file_beside_wandb(start, tmp_path):
    logger = start()
    both = with_metrics_file(logger, str(tmp_path / "run"))
    fit(TinyModule(), logger=both)
    finish(both)
    assert (tmp_path / "run/metrics.csv").exists()
    assert with_metrics_file(None, str(tmp_path)) == []
    alone = csv_logger(str(tmp_path))
    assert with_metrics_file(alone, str(tmp_path)) == [alone]
