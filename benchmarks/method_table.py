"""Markdown table of losses over seeds, from one evaluation a seed whose columns are the losses.

    potstill sweep start sweeps/grid/clinc150_losses.yaml loss=ce,kd,dkd,dist seed=0 run.dir=runs/losses/0   # 1, 2
    potstill evaluate logger=none run=runs/losses/0/1 baseline=runs/losses/0/0 \\
        +models.dkd=runs/losses/0/2 +models.dist=runs/losses/0/3 output=runs/losses/0/evaluated
    python -m benchmarks.method_table runs/losses/*/evaluated --without domain=out_of_scope --column accuracy \\
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
from numpy.typing import NDArray

from benchmarks.seed_table import Evaluation, check, difference, line, over_seeds, read, spread, values
from potstill.reporting.format import MISSING

NOT_TRAINED = ("teacher", "majority")
TO_TEACHER = ("agreement", "retention")  # which say again what the metric says

Seeds = list[dict[str, float | None]]  # what a loss came to, seed by seed


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="evaluation of one seed")
    parser.add_argument("--student", default="kd", help="loss of the column `student` (default: kd)")
    parser.add_argument("--baseline", default="ce", help="loss of the column `baseline`, which the others are held to")
    parser.add_argument("--without", action="append", default=[], metavar="SLICE", help="leave out for the worst slice")
    parser.add_argument("--column", action="append", metavar="NAME", help="show these values alone, the first ranks")
    parser.add_argument("--cost", type=Path, help="what benchmarks/step_cost.py wrote")
    options = parser.parse_args(arguments)
    evaluations = [read(directory) for directory in options.directories]
    check(evaluations, options.without)
    methods = by_loss(evaluations, {"student": options.student, "baseline": options.baseline}, options.without)
    cost = json.loads(options.cost.read_text(encoding="utf-8"))["losses"] if options.cost else {}
    known = [label for label in methods[options.baseline][0] if label not in TO_TEACHER]
    columns = options.column or known
    if unknown := [name for name in columns if name not in known]:
        sys.exit(f"No value is called {unknown[0]}. There are: {', '.join(known)}.")
    print("\n".join(markdown(methods, options.baseline, columns, cost)))


def by_loss(evaluations: Sequence[Evaluation], names: Mapping[str, str], without: Sequence[str]) -> dict[str, Seeds]:
    """What every trained model came to. names: the losses of columns that are not called by theirs."""
    trained = [model for model in evaluations[0]["models"] if model not in NOT_TRAINED]
    return {
        names.get(model, model): [values(evaluation, model, [], without) for evaluation in evaluations]
        for model in trained
    }


def markdown(
    methods: dict[str, Seeds], reference: str, columns: Sequence[str], cost: Mapping[str, Mapping[str, float]]
) -> Iterator[str]:
    """Lines of the table: one row a loss, the best mean first."""
    header = [f"loss, {len(methods[reference])} seeds", *columns, f"{columns[0]} - {reference}"]
    ways = list(next(iter(cost.values()), {}))
    yield line([*header, *(f"step, {way}" for way in ways)])
    yield line(["---"] + ["---:"] * (len(columns) + 1 + len(ways)))
    table: dict[str, dict[str, NDArray[np.float64]]] = {
        loss: {label: over_seeds(seeds, label) for label in columns} for loss, seeds in methods.items()
    }
    for loss in sorted(table, key=lambda loss: -table[loss][columns[0]].mean()):
        cells = [spread(table[loss][label]) for label in columns]
        gain = MISSING if loss == reference else difference(table[loss][columns[0]], table[reference][columns[0]])
        steps = [f"{cost[loss][way]:.2f}" if loss in cost else MISSING for way in ways]
        yield line([f"`{loss}`", *cells, gain, *steps])


if __name__ == "__main__":
    main()
