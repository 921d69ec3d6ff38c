"""Markdown table of the losses of one sweep, over seeds, from the `evaluation.json` of every job's run.

    potstill sweep start sweeps/grid/clinc150_losses.yaml data.labels_per_class=10 run.dir=runs/few_labels
    potstill evaluate -m logger=none bar=none reason="'a table of every loss'" \\
        run=$(ls -d runs/few_labels/[0-9]* | paste -sd ,)
    python -m benchmarks.method_table runs/few_labels --without domain=out_of_scope \\
        --cost benchmarks/results/step_cost.json

A cell is mean +- standard deviation over seeds, shares in percent. The differences are paired by seed, with their 95 %
t interval, not corrected for how many there are. Losses stand as the mean of the metric ranks them. `step`: what a step
costs in units of one without a teacher, with the teacher running or its logits remembered.
"""

# S seeds

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.seed_table import check, difference, line, read, spread, values
from potstill.reporting.format import MISSING
from potstill.sweeps.results import read_results

Seeds = dict[int, dict[str, float | None]]  # what a loss came to, by seed


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="DIR", help="sweep directory; several are put together")
    parser.add_argument("--reference", default="ce", help="loss that the differences are to (default: ce)")
    parser.add_argument("--without", action="append", default=[], metavar="SLICE", help="leave out for the worst slice")
    parser.add_argument("--cost", type=Path, help="what benchmarks/step_cost.py wrote")
    options = parser.parse_args(arguments)
    methods = by_loss(options.sweeps, options.without)
    if options.reference not in methods:
        sys.exit(f"No run has loss={options.reference}. There are: {', '.join(methods)}.")
    cost = json.loads(options.cost.read_text(encoding="utf-8"))["losses"] if options.cost else {}
    print("\n".join(markdown(methods, options.reference, cost)))


def by_loss(sweeps: Sequence[Path], without: Sequence[str]) -> dict[str, Seeds]:
    """What the student of every run came to, by loss and seed. Leaves with a message where seeds are missing."""
    results = read_results(sweeps)
    evaluations = [read(Path(result.place)) for result in results]
    check(evaluations, without)
    methods: dict[str, Seeds] = {}
    for result, evaluation in zip(results, evaluations, strict=True):
        assert result.seed is not None
        methods.setdefault(result.choices["loss"], {})[result.seed] = values(evaluation, "student", [], without)
    wanted = {seed for seeds in methods.values() for seed in seeds}
    for loss, seeds in methods.items():
        if seeds.keys() != wanted:
            sys.exit(f"loss={loss} has seeds {sorted(seeds)}, others {sorted(wanted)}: pairs would be missing.")
    return methods


def markdown(methods: dict[str, Seeds], reference: str, cost: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Lines of the table: one row a loss, the best mean first."""
    labels = list(next(iter(next(iter(methods.values())).values())))
    columns = [label for label in labels if label not in ("agreement", "retention")]
    header = [f"loss, {len(methods[reference])} seeds", *columns, f"{columns[0]} - {reference}"]
    ways = list(next(iter(cost.values()), {}))
    yield line([*header, *(f"step, {way}" for way in ways)])
    yield line(["---"] + ["---:"] * (len(columns) + 1 + len(ways)))
    table = {loss: {label: _over_seeds(seeds, label) for label in columns} for loss, seeds in methods.items()}
    for loss in sorted(table, key=lambda loss: -table[loss][columns[0]].mean()):
        cells = [spread(table[loss][label]) for label in columns]
        gain = MISSING if loss == reference else difference(table[loss][columns[0]], table[reference][columns[0]])
        steps = [f"{cost[loss][way]:.2f}" if loss in cost else MISSING for way in ways]
        yield line([f"`{loss}`", *cells, gain, *steps])


def _over_seeds(seeds: Seeds, label: str) -> np.ndarray:
    """`[S]`, in the order of the seeds, so that losses are paired."""
    return np.array([seeds[seed].get(label) for seed in sorted(seeds)], dtype=float)


if __name__ == "__main__":
    main()
