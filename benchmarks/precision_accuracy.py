"""Markdown table: does training in 16 bits cost accuracy? From runs that differ in seed and precision only.

    potstill train -m experiment=clinc150_all_labels logger=csv seed=0,1,2,3 hardware.precision=32,bf16-mixed \\
        optim.max_steps=708 run.dir=runs/precision
    python benchmarks/precision_accuracy.py runs/precision/*/ --out benchmarks/results/precision_accuracy.json

Validation accuracy of the kept weights, in percent: mean +- standard deviation over seeds, and the difference to
float32, paired by seed, with its 95 % t interval. Within seed noise: the interval holds zero, and the difference is
smaller than the standard deviation of float32.
"""

# S seeds

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from potstill.evaluation.statistics import paired_t_interval
from potstill.tracking.manifest import write_json

METRICS = {"val/accuracy": 100.0, "val/loss": 1.0}  # and what they are multiplied by
REFERENCE = "32"
MAY_DIFFER = ("run", "seed", "hardware", "callbacks", "logger")  # of the config; the last two hold the directory


@dataclass(frozen=True)
class Run:
    precision: str
    seed: int
    metrics: dict[str, float]
    commit: str | None
    config: dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="run directory")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    runs = [read(directory) for directory in options.directories]
    seeds = check(runs)
    if options.out:
        measured = [{"precision": run.precision, "seed": run.seed, **run.metrics} for run in runs]
        write_json(options.out, {"commit": runs[0].commit, "seeds": seeds, "runs": measured})
    print("\n".join(markdown(runs, seeds)))


def read(directory: Path) -> Run:
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    if "metrics" not in manifest:
        sys.exit(f"{directory} has no metrics: it ended as {manifest.get('status')}.")
    config: Any = OmegaConf.to_container(OmegaConf.load(directory / "config.yaml"))
    code = (manifest.get("git") or {}).get("potstill") or {}
    return Run(config["hardware"]["precision"], config["seed"], manifest["metrics"], code.get("commit"), config)


def check(runs: Sequence[Run]) -> list[int]:
    """The seeds that every precision has. Leaves with a message where the runs cannot be compared."""
    seeds = sorted({run.seed for run in runs})
    wanted = {(precision, seed) for precision in _precisions(runs) for seed in seeds}
    if sorted((run.precision, run.seed) for run in runs) != sorted(wanted):
        sys.exit("Every precision needs one run of every seed.")
    for run in runs:
        if run.commit != runs[0].commit:
            sys.exit(f"These runs are of different commits: {runs[0].commit} and {run.commit}.")
        for key in run.config:
            if key not in MAY_DIFFER and run.config[key] != runs[0].config[key]:
                sys.exit(f"These runs differ in more than seed and precision: {key}.")
    if REFERENCE not in _precisions(runs):
        sys.exit(f"No run has hardware.precision={REFERENCE}.")
    return seeds


def markdown(runs: Sequence[Run], seeds: Sequence[int]) -> Iterator[str]:
    """Lines of the table: one row a metric and precision."""
    yield f"| {len(seeds)} seeds | mean +- sd | each seed | less float32, 95 % interval |"
    yield "| --- | ---: | --- | ---: |"
    for metric, factor in METRICS.items():
        reference_S = factor * _over_seeds(runs, REFERENCE, metric, seeds)
        for precision in _precisions(runs):
            values_S = factor * _over_seeds(runs, precision, metric, seeds)
            digits = 2 if factor > 1.0 else 4
            each = ", ".join(f"{value:.{digits}f}" for value in values_S)
            spread = values_S.std(ddof=1) if len(seeds) > 1 else float("nan")
            difference = "" if precision == REFERENCE else _difference(values_S, reference_S, digits)
            name = f"{metric}, {precision}"
            yield f"| {name} | {values_S.mean():.{digits}f} +- {spread:.{digits}f} | {each} | {difference} |"


def _precisions(runs: Sequence[Run]) -> list[str]:
    """The reference first."""
    return sorted({run.precision for run in runs}, key=lambda precision: (precision != REFERENCE, precision))


def _over_seeds(runs: Sequence[Run], precision: str, metric: str, seeds: Sequence[int]) -> NDArray[np.float64]:
    """`[S]`, in the order of `seeds`."""
    found = {run.seed: run.metrics[metric] for run in runs if run.precision == precision}
    return np.array([found[seed] for seed in seeds])


def _difference(values_S: NDArray[np.float64], reference_S: NDArray[np.float64], digits: int) -> str:
    interval = paired_t_interval(values_S, reference_S)
    return f"{interval.value:+.{digits}f} [{interval.low:+.{digits}f}, {interval.high:+.{digits}f}]"


if __name__ == "__main__":
    main()
