"""Rows a second that the ledger writes, and the memory that many rows take, from the first call to the export.

    python benchmarks/ledger.py --rows 1000000 --out benchmarks/results/ledger.json

Every row is marked as in flight and settled with its answer, each committed with synchronous=FULL before the next
step, by as many writers at a time as there are requests in flight. Then the rows are read back, parsed, filtered and
exported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from potstill.config.compose import composed, typed
from potstill.config.text_schema import GenerateConfig
from potstill.generation.export import Exporter, Outcome
from potstill.generation.filters import Duplicate, Empty, Truncated, apply
from potstill.generation.ledger import Ledger, Settlement
from potstill.generation.plan import Plan
from potstill.generation.protocol import Request
from potstill.generation.sample import said
from potstill.tracking.manifest import git_state, write_json

TEACHER = ("data.source.train=x", "teacher.model=m", "teacher.revision=1", "teacher.endpoint.base_url=http://x")
ANSWER = "A sentence of the length that a short answer has, with some words after it. " * 3


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    options = typed(composed("generate", TEACHER), GenerateConfig).generation
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder, "prompts.jsonl")
        with prompts.open("w") as file:
            file.writelines(json.dumps({"text": f"What is said of number {n}?"}) + "\n" for n in range(arguments.rows))
        table = Dataset.from_json(str(prompts), cache_dir=folder)
        assert isinstance(table, Dataset)
        plan = Plan(table, options, "m", "1", "endpoint")
        ledger = Ledger(Path(folder))
        seconds = asyncio.run(write_all(plan, ledger, arguments.writers))
        export_seconds = export(plan, ledger, Path(folder, "export"), options.shard_rows) if arguments.export else None
        size = sum(path.stat().st_size for path in Path(folder).glob("ledger.sqlite*"))
        commits = ledger.num_commits
        ledger.close()
    return {
        "rows": arguments.rows,
        "writers": arguments.writers,
        "rows_per_s": round(arguments.rows / seconds),
        "commits": commits,
        "ledger_mb": round(size / 1e6, 1),
        "export_rows_per_s": export_seconds and round(arguments.rows / export_seconds),
        "max_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "git": git_state(Path(__file__).parent),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
    }


async def write_all(plan: Plan, ledger: Ledger, num_writers: int) -> float:
    """Seconds spent in writing; what it takes to make prompts and keys is left out."""
    waiting, seconds = plan.requests(), 0.0
    while together := [request for _, request in zip(range(num_writers * 50), waiting, strict=False)]:
        began = time.perf_counter()
        await asyncio.gather(*(write(together[first::num_writers], ledger) for first in range(num_writers)))
        seconds += time.perf_counter() - began
    return seconds


async def write(requests: list[Request], ledger: Ledger) -> None:
    for request in requests:
        await ledger.mark(request, 100, 0.001)
        choice = {"index": 0, "finish_reason": "stop", "message": {"content": f"{ANSWER}{request.key.hex()}"}}
        usage = {"prompt_tokens": 12, "completion_tokens": 60}
        raw = json.dumps({"choices": [choice], "usage": usage}).encode()
        await ledger.settle(request, Settlement("done", 200, raw, None, 1, 72, 0.0005))


def export(plan: Plan, ledger: Ledger, directory: Path, shard_rows: int) -> float:
    """Seconds."""
    began = time.perf_counter()
    made = Exporter(directory, plan.table, shard_rows).write(outcomes(plan, ledger))
    seconds = time.perf_counter() - began
    assert made["rows"] == len(plan.table)
    return seconds


def outcomes(plan: Plan, ledger: Ledger) -> Iterator[Outcome]:
    filters = {"truncated": Truncated(), "empty": Empty(), "duplicate": Duplicate()}
    for _, samples, missing in said(plan, ledger):
        kept, dropped = apply(filters, samples)
        yield kept, dropped, missing


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--writers", type=int, default=256, help="requests in flight")
    parser.add_argument("--export", action=argparse.BooleanOptionalAction, default=True, help="the second half")
    parser.add_argument("--out", type=Path)
    parsed = parser.parse_args()
    measured = main(parsed)
    print(json.dumps(measured, indent=2))
    if parsed.out:
        write_json(parsed.out, measured)
