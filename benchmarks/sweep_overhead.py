"""What a job of a sweep costs beside its training, and what is saved by sharing data and teacher between jobs.

    python benchmarks/sweep_overhead.py --out benchmarks/results/sweep_overhead.json

A sweep of short jobs on digits, and one on clinc150 whose teacher remembers, each run by the command line with Hydra's
basic launcher and an offline W&B run a job. Each sweep runs twice, `shared` and `alone`: alone, every job forgets what
the jobs before it prepared. The two take turns, so that what else the machine does meets both alike. Times are taken
around the functions named in PARTS; a part does not contain the parts it calls.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from potstill.tracking.manifest import git_state, write_json

# Where a name is looked up, and what to call the time in it. What is in none of them is the rest.
PARTS = {
    "hydra._internal.config_loader_impl.ConfigLoaderImpl.load_sweep_config": "compose",
    "potstill.commands.train.typed": "compose",
    "potstill.commands.train.validate": "compose",
    "potstill.commands.train.check_parts": "check",
    "potstill.commands.train.assemble_source": "data",
    "potstill.commands.assemble.shared_teacher": "teacher",
    "potstill.commands.assemble.signal_source": "teacher",
    "potstill.commands.assemble.load_student": "student",
    "potstill.commands.train.cost_of": "cost",
    "potstill.commands.train.make_module": "terms",
    "potstill.commands.train.facts_of": "manifest",
    "potstill.commands.train.preflight": "preflight",
    "potstill.tracking.logger.wandb_logger": "W&B start",
    "potstill.commands.recording.finish": "W&B finish",
    "potstill.commands.train.make_trainer": "trainer",
    "potstill.commands.train.fit": "training",
    "potstill.commands.train.export": "export",
    "pytorch_lightning.Trainer.validate": "validate",
    "potstill.tracking.record.log_student": "W&B student",
    "hydra.core.utils.run_job": "rest",
}
TRAINING, REST = "training", "rest"

DIGITS = (
    *("experiment=digits", "optim.max_steps=60", "validate_every=20"),
    *("optim.optimizer.lr=1.0e-3,3.0e-3,1.0e-2", "loss.term.kd.temperature=2,4"),
)
CLINC150 = (
    *("experiment=clinc150_few_labels", "optim.max_steps=236"),  # one epoch: every query meets the teacher
    "optim.optimizer.lr=1.0e-3,2.0e-3",
)
REPEATS = {"digits": 3, "clinc150": 1}  # a job of clinc150 takes minutes
TEACHER = ("experiment=digits_teacher", "optim.max_steps=200")


class Clock:
    """Seconds by label, of one job after another. A label's time does not contain that of labels inside it."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, float]] = []
        self._open: list[float] = []  # seconds spent inside the calls of each label that has begun

    def around(self, function: Callable[..., Any], label: str, *, begins: bool) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            if begins:
                self.jobs.append(defaultdict(float))
            self._open.append(0.0)
            began_at = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                seconds = time.perf_counter() - began_at
                if self.jobs:
                    self.jobs[-1][label] += seconds - self._open[-1]
                self._open.pop()
                if self._open:
                    self._open[-1] += seconds

        return timed


def wrap(name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put `make(function)` where `name`, a module or a class in it and an attribute, is looked up."""
    owner_name, _, attribute = name.rpartition(".")
    try:
        owner: Any = importlib.import_module(owner_name)
    except ModuleNotFoundError:
        module_name, _, class_name = owner_name.rpartition(".")
        owner = getattr(importlib.import_module(module_name), class_name)
    setattr(owner, attribute, make(getattr(owner, attribute)))


def measure(overrides: Sequence[str], *, is_alone: bool) -> list[dict[str, float]]:
    """Run one sweep in this process; returns each job's seconds by part."""
    from potstill.cli import main
    from potstill.commands.shared import forget

    first = next(iter(PARTS))
    clock = Clock()
    for name, label in PARTS.items():
        wrap(name, lambda function, name=name, label=label: clock.around(function, label, begins=name == first))
    if is_alone:
        wrap("potstill.commands.train.check_parts", lambda function: lambda *given: (forget(), function(*given))[1])
    with redirect_stdout(sys.stderr):
        code = main(["train", "-m", *overrides])
    if code:
        raise SystemExit(code)
    return [dict(job) for job in clock.jobs if REST in job]  # Hydra composes once before the first, too


def in_process_of_its_own(overrides: Sequence[str], *, is_alone: bool) -> list[dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "times.json")
        place = [f"run.dir={folder}/sweep", "logger.mode=offline"]
        command = [sys.executable, __file__, "--measure", str(out), *(["--alone"] if is_alone else []), "--"]
        quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}}
        subprocess.run([*command, *overrides, *place], check=True, **quiet)
        return json.loads(out.read_text())


def summary(sweeps: Sequence[Sequence[dict[str, float]]]) -> dict[str, Any]:
    """Medians in seconds over the first jobs of the sweeps, and over all jobs after them."""
    firsts = [sweep[0] for sweep in sweeps]
    return {"first job": _medians(firsts), "later jobs": _medians([job for sweep in sweeps for job in sweep[1:]])}


def _medians(jobs: Sequence[dict[str, float]]) -> dict[str, Any]:
    labels = dict.fromkeys(PARTS.values())
    totals = [sum(job.values()) for job in jobs]
    return {
        "jobs": len(jobs),
        "seconds": statistics.median(totals),
        "overhead_seconds": statistics.median(
            total - job.get(TRAINING, 0.0) for total, job in zip(totals, jobs, strict=True)
        ),
        "parts": {label: statistics.median(job.get(label, 0.0) for job in jobs) for label in labels},
    }


def markdown(results: dict[str, dict[str, Any]]) -> list[str]:
    """A table with a column for each sweep and way, and a row for each part; medians in seconds."""
    columns = {
        f"{sweep}, {way}, {which}": figures
        for sweep, ways in results.items()
        for way, both in ways.items()
        for which, figures in both.items()
    }
    lines = [f"| seconds a job | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    rows: dict[str, Callable[[dict[str, Any]], float]] = {
        "**whole job**": lambda figures: figures["seconds"],
        "**beside training**": lambda figures: figures["overhead_seconds"],
    }
    rows |= {label: lambda figures, label=label: figures["parts"][label] for label in dict.fromkeys(PARTS.values())}
    for name, value in rows.items():
        lines.append(f"| {name} | {' | '.join(f'{value(figures):.2f}' for figures in columns.values())} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sweeps", nargs="+", default=list(REPEATS), choices=list(REPEATS))
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        write_json(options.measure, measure(options.overrides, is_alone=options.alone))  # type: ignore[arg-type]
        return
    with tempfile.TemporaryDirectory() as folder:
        results = compared(options.sweeps, Path(folder))
    print(*markdown(results), sep="\n")
    if options.out:
        machine = {"platform": platform.platform(), "cores": os.cpu_count(), "torch": torch.__version__}
        code, overrides = git_state(Path(__file__).parent), {"digits": DIGITS, "clinc150": CLINC150}
        facts = {"code": code, "machine": machine, "overrides": overrides, "repeats": REPEATS}
        write_json(options.out, {**facts, "sweeps": results})


def compared(sweeps: Sequence[str], folder: Path) -> dict[str, dict[str, Any]]:
    """The summaries of each sweep, by way."""
    overrides = {"clinc150": list(CLINC150)}
    if "digits" in sweeps:
        teacher = folder / "teacher"
        command = [sys.executable, "-m", "potstill", "train", *TEACHER, f"run.dir={teacher}", "logger=none"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        overrides["digits"] = [*DIGITS, f"teacher.path={teacher}/student"]
    taken = {sweep: in_turns(overrides[sweep], REPEATS[sweep]) for sweep in sweeps}
    return {sweep: {way: summary(runs) for way, runs in ways.items()} for sweep, ways in taken.items()}


def in_turns(overrides: Sequence[str], num_repeats: int) -> dict[str, list[list[dict[str, float]]]]:
    """The jobs of each sweep, by way."""
    taken: dict[str, list[list[dict[str, float]]]] = {"shared": [], "alone": []}
    for repeat in range(num_repeats):
        for way in ("shared", "alone") if repeat % 2 == 0 else ("alone", "shared"):
            taken[way].append(in_process_of_its_own(overrides, is_alone=way == "alone"))
    return taken


if __name__ == "__main__":
    main()
