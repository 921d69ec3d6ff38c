"""A W&B run that is interrupted stays one run, and W&B interrupts no training. The real client, a server on this
machine."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from potstill.errors import StoppedError, UserError
from potstill.tracking.identity import waiting
from potstill.tracking.logger import RunLogger, finish, wandb_logger
from potstill.tracking.record import log_config, log_manifest
from tests.wandb_log import read_part, wandb_directories

from .wandb_server import WandbServer, told_of

pytestmark = pytest.mark.slow


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with told_of(WandbServer()) as server:
        yield server


def part(directory: Path, steps: range, **options: Any) -> str:
    """One process's part of a run: what the train command hands to W&B, and one metric a step. Returns the run's id."""
    logger = wandb_logger(str(directory), "run", "digits", "train", **options)
    log_metrics(logger, steps)
    finish([logger])
    return logger.experiment.id


def log_metrics(logger: RunLogger, steps: range) -> None:
    log_config([logger], {"seed": 0, "optim": {"lr": 0.1}})
    log_manifest([logger], {"status": "running", "first_step": steps[0]})
    for step in steps:
        logger.log_metrics({"train/loss": float(step)}, step)


def steps_of(rows: list[dict[str, Any]]) -> list[int]:
    assert [row["_step"] for row in rows] == list(range(len(rows))), "a row with the number of another replaces it"
    return [row["trainer/global_step"] for row in rows]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("potstill")]


def command_in(message: str) -> str:
    """The `wandb sync` command that a log line ends with."""
    return message[message.index("wandb sync") :]


def upload(command: str, directory: Path) -> None:
    subprocess.run(f"{sys.executable} -m {command}", shell=True, check=True, cwd=directory, capture_output=True)


def test_online_the_run_goes_on_behind_what_the_server_has(server, tmp_path):
    first = part(tmp_path, range(3), mode="online")
    second = part(tmp_path, range(2, 5), mode="online", resume_step=2)
    assert first == second
    assert "RunResumeStatus" in server.asked
    assert {run: steps_of(rows) for run, rows in server.history.items()} == {first: [0, 1, 2, 2, 3, 4]}


def test_offline_one_line_uploads_all_parts_in_order_as_one_run(server, tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, logger="potstill"):
        first = part(tmp_path / "run", range(2), mode="offline")
        time.sleep(1.1)  # the client names directories by the second
        second = part(tmp_path / "run", range(2, 4), mode="offline", resume_step=2)
    assert first == second
    parts = wandb_directories(tmp_path / "run")
    assert len(parts) == 2
    assert [read["summary"]["trainer/global_step"] for read in map(read_part, parts)] == [1, 3]

    message = said(caplog)[-1]
    assert "wandb leet run/wandb " in message
    upload(command_in(message), tmp_path)
    assert {run: steps_of(rows) for run, rows in server.history.items()} == {first: [0, 1, 2, 3]}
    assert waiting(tmp_path / "run/wandb", first) == []


def test_a_part_that_waits_to_be_uploaded_keeps_the_rest_behind_it(server, tmp_path, caplog):
    run_id = part(tmp_path, range(2), mode="offline")
    part(tmp_path, range(2, 4), mode="online", resume_step=2)
    assert server.history == {}
    assert "not uploaded yet" in caplog.text
    upload(f"wandb sync {tmp_path}/wandb/offline-run-*", tmp_path)
    assert part(tmp_path, range(4, 6), mode="online", resume_step=4) == run_id
    assert steps_of(server.history[run_id]) == [0, 1, 2, 3, 4, 5]


def test_a_run_that_begins_again_is_another_run(tmp_path):
    first = part(tmp_path, range(1), mode="offline")
    assert part(tmp_path, range(1), mode="offline") != first
    assert part(tmp_path / "new", range(1), mode="offline", resume_step=7)  # logged nowhere before


def test_a_lost_network_does_not_stop_training_and_the_rest_is_uploaded_later(server, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL", "0.5")  # seconds; the client's own are 15
    logger = wandb_logger(str(tmp_path), "run", None, "train", mode="online", finish_timeout_s=2)
    log_metrics(logger, range(3))
    deadline = time.monotonic() + 30
    while not server.history and time.monotonic() < deadline:
        time.sleep(0.1)
    server.kill()
    start = time.monotonic()
    log_metrics(logger, range(3, 200))
    finish([logger])
    assert time.monotonic() - start < 20
    [message] = said(caplog)
    assert "could not be reached" in message

    wandb.teardown()
    again = WandbServer()
    again.history = server.history
    monkeypatch.setenv("WANDB_BASE_URL", again.url)
    upload(command_in(message), tmp_path)
    again.kill()
    rows = again.history[logger.experiment.id]  # some sent twice, under the same `_step`
    assert {row["_step"]: row["trainer/global_step"] for row in rows} == {step: step for step in range(200)}


@pytest.mark.thorough
def test_a_client_that_dies_does_not_take_the_training_with_it(tmp_path):
    """In a process of its own: the client's service is one for all tests."""
    own = {name: value for name, value in os.environ.items() if "WANDB_SERVICE" not in name}  # else it takes ours
    command = [sys.executable, "-c", DYING, tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=own)
    assert "trained on" in result.stdout, result.stderr
    assert len(re.findall(r"Upload: wandb sync", result.stderr)) == 1


DYING = """
import logging, sys, time
import psutil
from potstill.tracking.logger import finish, wandb_logger
logging.basicConfig(format="%(message)s", level=logging.WARNING)
logger = wandb_logger(sys.argv[1], "run", None, "train", mode="offline")
logger.log_metrics({"a": 1.0}, 0)
children = psutil.Process().children(recursive=True)  # whichever thread started them
service = [child for child in children if "wandb-core" in " ".join(child.cmdline())]
assert service, [child.cmdline() for child in children]
for child in service:
    child.kill()
time.sleep(0.5)
for step in range(1, 50):
    logger.log_metrics({"a": 1.0}, step)
finish([logger])
print("trained on", flush=True)
"""


def test_a_directory_that_takes_no_files_is_said_and_no_other_is_taken(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StoppedError, match="could not be written"):
        part(tmp_path / "run", range(1), mode="offline")
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("seconds", [0, -1])
def test_an_endless_wait_at_the_end_cannot_be_asked_for(tmp_path, seconds):
    with pytest.raises(UserError, match="finish_timeout_s"):
        part(tmp_path, range(1), mode="offline", finish_timeout_s=seconds)
