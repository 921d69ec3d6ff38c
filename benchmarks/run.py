"""Run the benchmarks of a suite, each in a process of its own, and compare their figures with the goals.

    python -m benchmarks.run --suite smoke --check benchmarks/goals.toml
    OMP_NUM_THREADS=1 python -m benchmarks.run --suite cpu --out benchmarks/results --check benchmarks/goals.toml

--out: a directory, for one `NAME.json` a benchmark; or a file `*.json`, for all reports by name.
--check: exit code 1 where a goal is missed or a benchmark fails. A figure that could not be measured, for want of a
peer or of hardware, is listed as such and is no miss.

A goal is a line `"NAME/figure" = { at_most = 0.75 }`, or `at_least`; `why_missed` says of a known miss why,
and `suites` names those it holds for, where the smoke suite is too small for it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import SUITES, Figure, not_measured, shown
from potstill.tracking.manifest import write_json

# name: the suites in which it has something to measure
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "cache_io": SUITES,
    "e2e_lm": ("cpu", "gpu"),
    "head": ("smoke", "cpu", "gpu"),
    "overhead": ("cpu", "gpu"),
    "precision": ("cpu", "gpu"),
    "sparse_head": ("cpu", "gpu"),
    "packed_attention": ("cpu", "gpu"),
    "padding": ("smoke", "cpu", "gpu"),
    "sweep": ("cpu", "gpu"),
}
LIMITS = ("at_most", "at_least")
BESIDES = ("why_missed", "suites")

Reports = Mapping[str, Mapping[str, Any]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, required=True)
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", type=Path, metavar="GOALS")
    options = parser.parse_args(arguments)
    goals = of_suite(read_goals(options.check), options.suite) if options.check else {}
    names = [name for name in options.only if options.suite in BENCHMARKS[name]]
    with tempfile.TemporaryDirectory() as folder:
        reports = {name: report_of(name, options.suite, Path(folder)) for name in names}
    finished = {name: report for name, report in reports.items() if report is not None}
    if options.out:
        write(options.out, finished)
    lines = [*compared(goals, finished), *(f"FAILED     {name}" for name in names if name not in finished)]
    for line in lines:
        print(line)
    if any(line.startswith(("MISSED", "FAILED")) for line in lines):
        sys.exit(1)


def report_of(name: str, suite: str, folder: Path) -> dict[str, Any] | None:
    """What the benchmark wrote; None where it failed."""
    out = folder / f"{name}.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--suite", suite, "--out", str(out)]
    finished = subprocess.run(command, cwd=Path(__file__).resolve().parents[1], check=False)
    return json.loads(out.read_text()) if finished.returncode == 0 else None


def write(out: Path, reports: Reports) -> None:
    if out.suffix == ".json":
        write_json(out, reports)
    else:
        for name, report in reports.items():
            write_json(out / f"{name}.json", report)


def read_goals(file: Path) -> dict[str, dict[str, Any]]:
    """Raises ValueError for what is no goal: one that is not read would be met in silence."""
    goals = tomllib.loads(file.read_text(encoding="utf-8"))
    for name, goal in goals.items():
        stranger = not isinstance(goal, dict) or set(goal) - {*LIMITS, *BESIDES} or not set(goal) & set(LIMITS)
        if stranger or name.partition("/")[0] not in BENCHMARKS:
            raise ValueError(f'{file}: "{name}" = {goal} is no goal: "NAME/figure" = {{ at_most = 0.75 }}')
    return goals


def of_suite(goals: Mapping[str, dict[str, Any]], suite: str) -> dict[str, dict[str, Any]]:
    return {name: goal for name, goal in goals.items() if suite in goal.get("suites", SUITES)}


def compared(goals: Mapping[str, Mapping[str, Any]], reports: Reports) -> Iterator[str]:
    """One line for each goal of a benchmark that ran; first word `met`, `MISSED` or `unmeasured`."""
    for name, goal in goals.items():
        benchmark, _, figure = name.partition("/")
        if benchmark in reports:
            found = reports[benchmark]["figures"].get(figure)
            yield verdict(name, goal, Figure(**found) if found else not_measured("no part of this suite"))


def verdict(name: str, goal: Mapping[str, Any], found: Figure) -> str:
    limits = " ".join(f"{limit.replace('_', ' ')} {goal[limit]}" for limit in LIMITS if limit in goal)
    if found.value is None:
        return f"unmeasured {name}: goal {limits}; {found.reason}"
    is_met = goal.get("at_least", found.value) <= found.value <= goal.get("at_most", found.value)
    why = "" if is_met or "why_missed" not in goal else f" ({goal['why_missed']})"
    return f"{'met' if is_met else 'MISSED':10} {name}: {shown(found)}, goal {limits}{why}"


if __name__ == "__main__":
    main()
