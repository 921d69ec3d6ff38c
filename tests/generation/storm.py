"""A proxy that refuses beyond a rate, for minutes: `python -m tests.generation.storm MINUTES RPM`."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.generation.servers import REPO, endpoint, litellm_proxy, overrides, prompts_file


@dataclass
class Outcome:
    """refused: by the proxy. attempts: the most that one request used. goodput: of the limit, once settled."""

    rows: int
    done: int
    attempts: int
    refused: int
    goodput: float


def storm(directory: Path, minutes: int, rpm: int) -> Outcome:
    """As many rows as the limit lets through in `minutes`, through a proxy that allows `rpm`."""
    num_rows = minutes * rpm
    prompts = prompts_file(directory, [f"row {number}" for number in range(num_rows)])
    with endpoint(directory) as upstream, litellm_proxy(directory, upstream.url, rpm) as proxy:
        given = [*overrides(proxy.url, prompts), "limits.attempts=1", "run.dir=out"]
        environment = {**os.environ, "PYTHONPATH": str(REPO / "src")}
        command = [sys.executable, "-m", "potstill", "generate", *given]
        subprocess.run(command, cwd=directory, env=environment, check=True)
        times = [request["at"] for request in upstream.asked()]
        refused = proxy.log.read_text().count('completions HTTP/1.1" 429')
    ledger = sqlite3.connect(directory / "runs/generate/ledger/ledger.sqlite")
    done, attempts = ledger.execute("SELECT sum(state = 'done'), max(attempts) FROM requests").fetchone()
    ledger.close()
    return Outcome(num_rows, done, attempts, refused, goodput(times, rpm))


def goodput(times: list[float], rpm: int) -> float:
    """Share of the limit that was used between the minute after the first answer and the last answer.

    The proxy counts by minutes of the clock, so only whole ones are looked at.
    """
    first, last = int(times[0] // 60) + 1, int(times[-1] // 60)
    settled = [at for at in times if first <= at // 60 < last]
    return len(settled) / (rpm * (last - first)) if last > first else float("nan")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(storm(Path(folder), minutes=int(sys.argv[1]), rpm=int(sys.argv[2])))
