"""A generation killed again and again, and what that cost: `python -m tests.generation.killing KILLS ROWS`."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.generation.servers import REPO, Running, overrides, prompts_file, tiny_chat_model, transformers_serve


@dataclass
class Outcome:
    """calls: that the server answered. in_flight: requests that were, at all kills together. asked_twice: of those that
    were acknowledged before a kill."""

    rows: int
    kills: int
    calls: int
    in_flight: int
    asked_twice: int
    same_export: bool


def kill_and_resume(
    server: Running,
    model: str,
    directory: Path,
    num_rows: int,
    num_kills: int,
    finish: Callable[[list[str]], int] | None = None,
) -> Outcome:
    """Kill -9 at `num_kills` random moments while rows are generated, finish, and compare with a run undisturbed.

    finish: runs the command to its end, and returns the exit code; default: in a process of its own.
    """
    finish = finish or (lambda given: start(given, directory).wait())
    prompts = prompts_file(directory, [f"row {number}" for number in range(num_rows)])
    changes = {"teacher__model": model, "generation__filters__truncated": "null", "limits__maximum": 8}
    given = [*overrides(server.url, prompts, **changes), "run.dir=killed", "ledger.dir=killed/ledger"]
    in_flight, acknowledged, done_by = 0, dict[bytes, float](), 0
    for kill in range(num_kills):
        process = start(given, directory)
        target = num_rows * (kill + 1) // (num_kills + 2) + random.randrange(max(1, num_rows // 50))
        while done_by < target and process.poll() is None:
            time.sleep(random.uniform(0.0, 0.05))
            done_by = count(directory, "done")
        process.kill()
        process.wait()
        in_flight += count(directory, "in_flight")
        acknowledged |= sent_times(directory)
    assert finish(given) == 0
    calls = server.num_calls()
    now = sent_times(directory)
    asked_twice = sum(now[key] != at for key, at in acknowledged.items())
    whole = [*overrides(server.url, prompts, **changes), "run.dir=whole", "ledger.dir=whole/ledger"]
    assert finish(whole) == 0
    assert server.num_calls() - calls == num_rows
    hashes = {(directory / name / "export" / "train-00000.parquet").read_bytes() for name in ("killed", "whole")}
    return Outcome(num_rows, num_kills, calls, in_flight, asked_twice, len(hashes) == 1)


def start(given: list[str], directory: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(REPO / "src"), "OMP_NUM_THREADS": "1"}
    with (directory / "generate.log").open("a") as log:
        command = [sys.executable, "-m", "potstill", "generate", *given]
        return subprocess.Popen(command, cwd=directory, stdout=log, stderr=log, env=environment)


def count(directory: Path, state: str) -> int:
    rows = read(directory, f"SELECT count(*) FROM requests WHERE state = '{state}'")
    return rows[0][0] if rows else 0


def sent_times(directory: Path) -> dict[bytes, float]:
    """Of acknowledged requests, when each was sent: a second sending would change it."""
    return dict(read(directory, "SELECT key, sent_at FROM requests WHERE state = 'done'"))


def read(directory: Path, query: str) -> list[tuple]:
    path = directory / "killed" / "ledger" / "ledger.sqlite"
    if not path.exists():
        return []
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    except sqlite3.OperationalError:  # not yet made, or its tables are not
        return []
    finally:
        connection.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tiny = tiny_chat_model(place / "model")
        with transformers_serve(tiny, place) as serving:
            print(kill_and_resume(serving, tiny, place, num_rows=int(sys.argv[2]), num_kills=int(sys.argv[1])))
