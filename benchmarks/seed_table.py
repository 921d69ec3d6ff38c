"""Markdown table of one experiment over several seeds, from the `evaluation.json` of each seed's run.

    python benchmarks/seed_table.py runs/clinc150/seed_*/ --slice domain=banking --without domain=out_of_scope

A cell is mean +- standard deviation over seeds. The last column is student - baseline (or --against another model),
paired by seed, with its 95 % t interval. Shares are in percent, differences in points; `-` stands where a seed has
no such value. Of a recipe's run, the time per epoch of every stage is shown as well: an epoch of its own training
examples.
"""

# S seeds

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.evaluation.ranking import SHARES, numbers, slices_worst_first
from potstill.evaluation.statistics import paired_t_interval
from potstill.reporting.format import MISSING

Evaluation = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    evaluations = [read(directory) for directory in options.directories]
    check(evaluations, [*options.slice, *options.without], options.against)
    print("\n".join(markdown(evaluations, options.slice, options.without, options.against)))


def markdown(
    evaluations: Sequence[Evaluation], slices: Sequence[str], without: Sequence[str], against: str | None = None
) -> Iterator[str]:
    """Lines of the table: one row a value, one column a model."""
    columns = {
        model: [values(evaluation, model, slices, without) for evaluation in evaluations]
        for model in evaluations[0]["models"]
    }
    against = against or "baseline"
    compared = [f"student - {against}"] if {"student", against} <= columns.keys() else []
    yield line([f"{len(evaluations)} seeds", *columns, *compared])
    yield line(["---"] + ["---:"] * (len(columns) + len(compared)))
    for label in dict.fromkeys(label for seeds in columns.values() for label in seeds[0]):
        found = {model: over_seeds(seeds, label) for model, seeds in columns.items()}
        differences = [difference(found["student"], found[against]) for _ in compared]
        yield line([label, *map(spread, found.values()), *differences])


def values(
    evaluation: Evaluation, model: str, slices: Sequence[str], without: Sequence[str]
) -> dict[str, float | None]:
    """What the table says of one model in one seed, by the label of its row; shares in percent."""
    metric, report = evaluation["metric"], evaluation["models"][model]
    overall, by_slice = report["overall"], report["slices"]
    found = {name: _percent(name, value) for name, value in numbers(overall).items()}
    for name in without:
        found[f"{metric} without {name}"] = _percent(metric, _outside(overall, by_slice[name], metric))
    worst = next((name for name in slices_worst_first(evaluation, model) if name not in without), None)
    if worst is not None:
        label = f"{metric}, worst slice" + (" of the others" if without else "")
        found[label] = _percent(metric, by_slice[worst][metric])
    for name in slices:
        found[f"{metric}, {name}"] = _percent(metric, by_slice[name][metric])
    if "seconds_per_epoch" in report:
        found["seconds per epoch, validation included"] = report["seconds_per_epoch"]
    return found


def _outside(overall: dict[str, Any], inside: dict[str, Any], metric: str) -> float | None:
    """The metric over the rows that are not in the slice: the sum over all rows less the sum over the slice."""
    num_rows = overall["num_labelled"] - inside["num_labelled"]
    if not num_rows or not inside["num_labelled"]:
        return overall[metric] if num_rows else None
    to_mean, from_mean = (math.log, math.exp) if metric == "perplexity" else (float, float)
    total = overall["num_labelled"] * to_mean(overall[metric]) - inside["num_labelled"] * to_mean(inside[metric])
    return from_mean(total / num_rows)


def _percent(name: str, value: float | None) -> float | None:
    return 100 * value if value is not None and name in SHARES else value


def over_seeds(seeds: Sequence[dict[str, float | None]], label: str) -> NDArray[np.float64]:
    """`[S]`, nan where a seed has no such value."""
    return np.array([seed.get(label) for seed in seeds], dtype=float)


def spread(values_S: NDArray[np.float64]) -> str:
    if np.isnan(values_S).any():
        return MISSING
    if len(values_S) == 1:
        return f"{values_S[0]:.2f}"
    return f"{values_S.mean():.2f} +- {values_S.std(ddof=1):.2f}"


def difference(first_S: NDArray[np.float64], second_S: NDArray[np.float64]) -> str:
    interval = paired_t_interval(first_S, second_S)
    if math.isnan(interval.value):
        return MISSING
    if math.isnan(interval.low):
        return f"{interval.value:+.2f}"
    return f"{interval.value:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def read(directory: Path) -> Evaluation:
    path = directory / "evaluation.json"
    if not path.is_file():
        sys.exit(f"{path.absolute()} does not exist. Write it with: potstill evaluate run={directory}")
    evaluation = json.loads(path.read_text(encoding="utf-8"))
    for model, report in evaluation["models"].items():
        manifest = directory / model / "manifest.json"  # of a recipe's stage of that name
        if manifest.is_file():
            report |= json.loads(manifest.read_text(encoding="utf-8")).get("training", {})
    return evaluation


def check(evaluations: Sequence[Evaluation], slices: Sequence[str], against: str | None = None) -> None:
    """Leave with a message where the runs cannot be put into one table."""
    first = evaluations[0]
    for key in ("schema_version", "task", "metric"):
        found = {evaluation[key] for evaluation in evaluations}
        if len(found) > 1:
            sys.exit(f"These runs do not belong together: {key} is {', '.join(map(str, sorted(found)))}.")
    if any(list(evaluation["models"]) != list(first["models"]) for evaluation in evaluations):
        sys.exit("These runs do not belong together: they did not evaluate the same models.")
    if against and against not in first["models"]:
        sys.exit(f"No model is called {against}. There are: {', '.join(first['models'])}.")
    for evaluation in evaluations:
        known = next(iter(evaluation["models"].values()))["slices"]
        for name in slices:
            if name not in known:
                sys.exit(f"No slice is called {name}. There are: {', '.join(known) or 'none'}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="run directory, one a seed")
    parser.add_argument("--slice", action="append", default=[], metavar="NAME", help="a row for this slice")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="a row for all rows outside it")
    parser.add_argument("--against", metavar="MODEL", help="the student is compared with, instead of the baseline")
    return parser


if __name__ == "__main__":
    main()
