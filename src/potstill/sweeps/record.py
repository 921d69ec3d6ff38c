"""sweep.json and job.json: what a sweep was to run, and how each of its jobs ended.

A job that ends by itself, however, leaves job.json. Of others the run's own manifest and lock tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.tracking.lock import is_locked
from potstill.tracking.manifest import manifest_of, write_json

SCHEMA_VERSION = 1
RECORD, JOB = "sweep.json", "job.json"

# How a job stands. Of those in DONE there is nothing left to run.
DONE = ("finished", "diverged", "pruned")
STATUSES = (*DONE, "failed", "refused", "interrupted", "killed", "running", "missing")


@dataclass(frozen=True)
class SweepRecord:
    """What was asked for.

    overrides: as typed. keys: what varies. config: of the first job, resolved.
    jobs: the overrides each job has for itself; None where they are decided on the way (hydra/sweeper=optuna).
    """

    directory: Path
    name: str
    command: str
    overrides: list[str]
    sweeper: str
    keys: list[str]
    jobs: list[list[str]] | None
    config: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """How one job stands. overrides: its own, that no other need share. values: metrics it returned.

    error: why it failed, was refused or diverged. seconds: from its start to its end, loading included.
    """

    number: int
    directory: Path
    overrides: list[str]
    status: str
    error: str | None = None
    values: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None


def write_sweep(sweep: SweepRecord) -> None:
    content = {name: value for name, value in vars(sweep).items() if name != "directory"}
    write_json(sweep.directory / RECORD, {"schema_version": SCHEMA_VERSION, **content})


def read_sweep(directory: Path) -> SweepRecord:
    """Raises UserError where the directory holds no sweep."""
    file = directory / RECORD
    if not file.is_file():
        fix = "Give the directory that `potstill train -m` or `potstill sweep start` wrote."
        raise UserError("sweep", str(directory), f"holds no {RECORD}, so it is no sweep.", fix)
    content = json.loads(file.read_text(encoding="utf-8"))
    content.pop("schema_version")
    return SweepRecord(directory=directory, **content)


def write_job(
    directory: Path,
    overrides: Sequence[str],
    status: str,
    *,
    error: str | None = None,
    values: Mapping[str, float] | None = None,
    seconds: float | None = None,
) -> None:
    """overrides: the job's own."""
    content = {"overrides": list(overrides), "status": status, "error": error}
    content |= {"values": dict(values or {}), "seconds": seconds}
    write_json(directory / JOB, {"schema_version": SCHEMA_VERSION, "number": int(directory.name), **content})


def jobs_of(sweep: SweepRecord) -> list[Job]:
    """Every job there is, was or should be, by number."""
    planned = range(len(sweep.jobs or []))
    present = {int(path.name) for path in sweep.directory.iterdir() if path.name.isdecimal() and path.is_dir()}
    return [job_of(sweep, number) for number in sorted(present.union(planned))]


def own_overrides(overrides: Sequence[str], sweep: SweepRecord) -> list[str]:
    """Those of a job's `overrides` that are its own."""
    return [text for text in overrides if text.partition("=")[0] in sweep.keys]


def job_of(sweep: SweepRecord, number: int) -> Job:
    directory, planned = sweep.directory / str(number), (sweep.jobs or [])[number : number + 1]
    if (directory / JOB).is_file():
        said = json.loads((directory / JOB).read_text(encoding="utf-8"))
        values = {name: value for name, value in said["values"].items() if value is not None}
        return Job(number, directory, said["overrides"], said["status"], said["error"], values, said["seconds"])
    status = run_status(directory)
    values = manifest_of(directory).get("metrics", {}) if status in DONE else {}
    return Job(number, directory, planned[0] if planned else [], status, values=values)


def run_status(directory: Path) -> str:
    """Of a run by itself: what its manifest says and, of one that never closed it, its lock."""
    if not directory.is_dir():
        return "missing"
    said = manifest_of(directory).get("status", "running")
    return said if said != "running" else "running" if is_locked(directory) else "killed"
