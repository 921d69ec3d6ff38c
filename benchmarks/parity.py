"""Our losses beside those of the projects that people come from: values and gradients on random inputs.

    make parity                  # installs the projects into .venv, and runs this
    python -m benchmarks.parity  # those that are there

Prints a Markdown table: the largest absolute difference over 20 seeds, in value and in any gradient of the student's,
in float64. tests/parity/test_live.py holds the same cases to their tolerances.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.parity_cases import CASES
from benchmarks.parity_cases.comparing import SEEDS, Case, compare_seeds, version

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("project", "its loss", "ours", "convention", "value", "gradient")


def main() -> None:
    print("\n".join(report()))


def report() -> Iterator[str]:
    peers = list(dict.fromkeys(case.peer for case in CASES))
    versions = {peer: version(peer) for peer in peers}
    there = ", ".join(f"{peer} {found}" for peer, found in versions.items() if found)
    missing = [peer for peer, found in versions.items() if not found]
    yield f"Commit {commit()}, torch {torch.__version__}, {len(SEEDS)} seeds: {there}."
    if missing:
        yield f"Not installed: {', '.join(missing)}."
    yield ""
    yield line(COLUMNS)
    yield line(("---",) * len(COLUMNS))
    for case in CASES:
        if versions[case.peer]:
            yield row(case)


def row(case: Case) -> str:
    difference = compare_seeds(case)
    found = (difference.value, difference.gradient)
    return line((case.peer, case.name, f"`{case.our_name}`", case.convention, *(f"{each:.0e}" for each in found)))


def line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def commit() -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
