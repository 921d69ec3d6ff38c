"""Two processes never write one run, and a dead one never keeps it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from potstill.errors import StoppedError, UserError
from potstill.tracking.lock import locked

HOLDER = """
import sys, time
from potstill.tracking.lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_run_that_is_being_written_is_refused_after_a_wait(tmp_path, holder):  # noqa: ARG001
    start = time.monotonic()
    with (
        pytest.raises(UserError, match=r"--resume=.*is being written by another process"),
        locked(tmp_path, "--resume", wait_s=0.3),
    ):
        pass
    assert 0.3 <= time.monotonic() - start < 3


@pytest.mark.slow
def test_a_killed_process_keeps_nothing(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_the_run_is_free_after_the_block_and_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path, wait_s=0), pytest.raises(UserError), locked(tmp_path, wait_s=0):
        pass
    with locked(tmp_path, wait_s=0):
        pass


def test_a_place_where_nothing_can_be_written_is_not_said_to_be_in_use(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(StoppedError, match=r"\.lock could not be written"), locked(tmp_path / "run", wait_s=0):
        pass
