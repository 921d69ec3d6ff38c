"""Sweeps: many jobs of one command, begun, looked at and gone on with."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from potstill.config.combinations import combinations
from potstill.errors import BAD_INPUT, DONE, FAILED, UserError, nearest_hint
from potstill.nested import flat
from potstill.reporting.sweep_table import print_sweep
from potstill.sweeps import record
from potstill.sweeps.record import RECORD, Job, SweepRecord, jobs_of, read_sweep
from potstill.tracking.secrets import redact

log = logging.getLogger(__name__)

ACTIONS = {
    "start": "run the sweep that a file describes: potstill sweep start FILE [key=value ...]",
    "status": "how every job of a sweep stands: potstill sweep status DIR",
    "resume": "run what is missing: potstill sweep resume DIR",
}

FOLDERS = ("grid", "optuna")  # of files that describe a sweep: groups of conf/train.yaml, each with its sweeper


def begin(command: str, overrides: Sequence[str]) -> SweepRecord:
    """Work the sweep out and write it down. UserError where it cannot be composed, or its directory holds one."""
    sweep = _planned(command, overrides)
    if (sweep.directory / RECORD).exists():
        fix = f"Go on with it: potstill sweep resume {sweep.directory}   Or choose another directory: run.dir=..."
        raise UserError("run.dir", str(sweep.directory), "holds a sweep already.", fix)
    record.write_sweep(sweep)
    return sweep


def go_on(directory: Path, given: Sequence[str]) -> tuple[SweepRecord, list[str]]:
    """The sweep, and the overrides that run what is missing of it; none where nothing is.

    given: overrides of how it is launched. UserError where the sweep is no longer the one it was.
    """
    sweep = read_sweep(directory.absolute())
    for text in given:
        if not text.startswith(("hydra.", "hydra/")):
            problem = "would make the rest of the sweep another one; only how it is launched may change."
            raise UserError(
                text.partition("=")[0], text.partition("=")[2], problem, "For example: hydra/launcher=joblib"
            )
    overrides = [*sweep.overrides, *given]
    _refuse_other(sweep, _planned(sweep.command, overrides))
    jobs = jobs_of(sweep)
    if running := [job for job in jobs if job.status == "running"]:
        log.warning("%d job(s) are being run by another process, and are left to it.", len(running))
    if sweep.jobs is None:
        return sweep, overrides
    only = [job.number for job in jobs if job.status not in (*record.DONE, "running")]
    return sweep, [*overrides, f"hydra.sweeper.only={only}"] if only else []


def outcome(sweep: SweepRecord) -> int:
    """Print how the jobs ended, and return the exit code: of a sweep that failed in part, that of a failure."""
    jobs = jobs_of(sweep)
    print_sweep(sweep, jobs)
    bad = {job.status for job in jobs} - {*record.DONE, "running"}
    if bad:
        # a study keeps a trial that failed: its sampler has learnt from it
        rest = bad - {"failed", "refused"} if sweep.jobs is None else bad
        again = f" Go on: potstill sweep resume {sweep.directory}" if rest else ""
        print(f"\n{_count(jobs, bad)}.{again}", file=sys.stderr)
    return DONE if not bad else BAD_INPUT if bad == {"refused"} else FAILED


def main(arguments: Sequence[str], launch: Callable[..., int]) -> int:
    """`potstill sweep ...`. launch: of a command, overrides and the sweep, where it is there already."""
    action = arguments[0] if arguments else ""
    if action not in ACTIONS or len(arguments) < 2:
        problem = "needs a file or a directory." if action in ACTIONS else "is no action of a sweep."
        raise UserError("sweep", " ".join(arguments), problem, "\n".join(["There are:", *ACTIONS.values()]))
    path, rest = Path(arguments[1]), arguments[2:]
    if action == "start":
        return launch("train", ["-m", *file_overrides(path), *rest])
    if action == "status":
        sweep = read_sweep(path.absolute())
        print_sweep(sweep, jobs_of(sweep))
        return DONE
    sweep, overrides = go_on(path, rest)
    if not overrides:
        print("Nothing is missing.")
        return outcome(sweep)
    return launch(sweep.command, ["-m", *overrides], sweep)


def file_overrides(file: Path) -> list[str]:
    """A sweep's file is an option of the config group that its folder names, and so is its sweeper.

    The file cannot choose its sweeper: of two overrides in defaults lists Hydra takes the outer one.
    """
    if file.suffix != ".yaml" or not file.is_file():
        there = [str(path) for folder in FOLDERS for path in Path("sweeps", folder).glob("*.yaml")]
        raise UserError("sweep start", str(file), "is no YAML file.", nearest_hint(str(file), there))
    file = file.absolute()
    if file.parent.name not in FOLDERS:
        problem = "lies in a folder that is no config group for sweeps."
        raise UserError("sweep start", str(file), problem, f"Put it into a folder named {' or '.join(FOLDERS)}.")
    folder = file.parent.name
    return ["--config-dir", str(file.parent.parent), f"{folder}={file.stem}", f"hydra/sweeper={folder}"]


def _planned(command: str, overrides: Sequence[str]) -> SweepRecord:
    plan = combinations(command, overrides)
    name = f"{plan.directory.parent.name}/{plan.directory.name}"
    overrides = [text for text in overrides if not text.startswith(("hydra.sweep.dir=", "hydra.sweeper.only="))]
    overrides += [f"hydra.sweep.dir='{plan.directory}'"]
    return SweepRecord(
        plan.directory, name, command, overrides, plan.sweeper, plan.keys, plan.jobs, redact(plan.config)
    )


def _refuse_other(before: SweepRecord, now: SweepRecord) -> None:
    """Files may have changed since: half of the sweep would be of one kind and half of another."""
    then, here = flat(before.config), flat(now.config)
    changed = [key for key in then.keys() | here.keys() if then.get(key) != here.get(key)]
    changed = sorted(key for key in changed if not key.startswith("run."))
    if before.jobs != now.jobs:
        changed = ["the jobs", *changed]
    if changed:
        problem = f"is no longer what it was when the sweep began. Changed: {', '.join(changed[:12])}."
        fix = "Restore the config files, or begin another sweep."
        raise UserError("sweep", str(before.directory), problem, fix)


def _count(jobs: Sequence[Job], statuses: set[str]) -> str:
    counts = Counter(job.status for job in jobs if job.status in statuses)
    return f"{', '.join(f'{count} {status}' for status, count in counts.items())} of {len(jobs)} jobs"
