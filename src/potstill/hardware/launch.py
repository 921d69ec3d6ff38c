"""Starts the ranks of a run on this machine, and sees them to their end.

torchrun does the same, but ends every rank as soon as one has left: rank 0 would be cut off while it saves.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from potstill.errors import BAD_INPUT, FAILED, INTERRUPTED, StoppedError, UserError
from potstill.interrupts import sigterm_interrupts

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 60.0  # for the other ranks to save and leave, once one has failed; they may hang in a collective
POLL_S = 0.05
_ERROR_FILE, _LAUNCHER = "POTSTILL_RANK_ERROR_FILE", "POTSTILL_RANK_LAUNCHER"


def launch(num_ranks: int, command: Sequence[str]) -> None:
    """Run `command` once a rank; return when all have ended well.

    Signals to stop are handed on to every rank; KeyboardInterrupt where ranks left for one. Where a rank failed: what
    the first of them raised, if it is a UserError or StoppedError, else StoppedError with its traceback or signal.
    """
    with tempfile.TemporaryDirectory(prefix="potstill-ranks-") as folder:
        files = [Path(folder) / f"{rank}.json" for rank in range(num_ranks)]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "TORCHELASTIC_RUN_ID": "potstill"}
        shared |= {"WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks), "GROUP_RANK": "0"}
        shared[_LAUNCHER] = str(os.getpid())
        processes: list[subprocess.Popen[bytes]] = []
        with _handing_on_signals(processes) as asked:
            for rank, file in enumerate(files):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank), _ERROR_FILE: str(file)}
                # a session of its own: a Ctrl-C in the terminal reaches a rank once, through us
                processes.append(subprocess.Popen(command, env={**os.environ, **shared, **own}, start_new_session=True))
            first_failed = _wait(processes)
        if first_failed is not None:
            raise _reason(first_failed, processes[first_failed].returncode, files, was_asked=bool(asked))


@contextmanager
def as_rank() -> Iterator[None]:
    """The body of a rank's process: it dies with its launcher, and tells it what it raised."""
    _die_with_parent()
    try:
        with sigterm_interrupts():
            yield
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if file := os.environ.get(_ERROR_FILE):
            Path(file).write_text(json.dumps(_described(error)))
        else:
            traceback.print_exc()
        sys.exit(BAD_INPUT if isinstance(error, UserError) else FAILED)


def _wait(processes: list[subprocess.Popen[bytes]]) -> int | None:
    """Returns the rank that failed first, or None."""
    first_failed, deadline = None, float("inf")
    while None in [process.poll() for process in processes]:  # a list: each is asked, not just the first that runs
        time.sleep(POLL_S)
        failed = [rank for rank, process in enumerate(processes) if process.returncode]
        if failed and first_failed is None:
            # of several at once a killed one, whose code is negative: its death made the others fail
            first_failed = min(failed, key=lambda rank: processes[rank].returncode)
            deadline = time.monotonic() + GRACE_S
        if time.monotonic() > deadline:
            _send(processes, signal.SIGKILL)
    if first_failed is None:
        first_failed = next((rank for rank, process in enumerate(processes) if process.returncode), None)
    return first_failed


@contextmanager
def _handing_on_signals(processes: list[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """The ranks stop in their own time: at the first signal they save and leave, at the second they leave.

    Yields the signals that came.
    """
    asked: list[int] = []

    def hand_on(number: int, _frame: object) -> None:
        asked.append(number)
        _send(processes, signal.SIGTERM)

    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup means it
    before = {number: signal.signal(number, hand_on) for number in heeded}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _send(processes, signal.SIGKILL)  # none is left, unless starting or waiting itself failed
        for process in processes:
            process.wait()


def _send(processes: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _reason(rank: int, exit_code: int, files: list[Path], *, was_asked: bool) -> BaseException:
    """Why the run failed. was_asked: to stop, by a signal, which ends a rank that is still importing."""
    if exit_code == INTERRUPTED or (was_asked and exit_code == -signal.SIGTERM):
        return KeyboardInterrupt()
    if exit_code < 0:
        return StoppedError(f"Rank {rank} was killed by {signal.Signals(-exit_code).name}.")
    if not files[rank].exists():
        return StoppedError(f"Rank {rank} left with exit code {exit_code}.")
    told = json.loads(files[rank].read_text())
    if told["kind"] == "UserError":
        return UserError(**told["fields"])
    return StoppedError(told["text"] if told["kind"] == "StoppedError" else f"Rank {rank} failed:\n{told['text']}")


def _described(error: Exception) -> dict[str, Any]:
    if isinstance(error, UserError):
        fields = {"key": error.key, "value": error.value, "problem": error.problem, "fix": error.fix}
        return {"kind": "UserError", "fields": json.loads(json.dumps(fields, default=str))}
    if isinstance(error, StoppedError):
        return {"kind": "StoppedError", "text": "\n".join([str(error), *getattr(error, "__notes__", ())])}
    return {"kind": "other", "text": "".join(traceback.format_exception(error))}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _die_with_parent() -> None:
    """A rank without its launcher would train on, unseen, in a directory that somebody else may resume."""
    if sys.platform == "linux":
        import ctypes

        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.environ.get(_LAUNCHER, str(os.getppid())) != str(os.getppid()):
        sys.exit(FAILED)  # it died while this process was importing
