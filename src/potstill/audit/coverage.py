"""Whether a transfer set holds what is asked of the student: by cells, and by the distance to the nearest example."""

# T transfer examples, E sample examples, D width of an embedding

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

THIN = 0.5  # of a cell's share of the sample: with less, the transfer set is thin there
EMPTY, THINLY, COVERED, UNASKED = "empty", "thin", "covered", "not in the sample"

Columns = Mapping[str, Sequence[str]]


def coverage(
    transfer: Columns, sample: Columns, *, crossed: Sequence[str] = (), distance: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The cells of the sample and what the transfer set has in them.

    transfer, sample: per column one value an example; the columns are those of both. crossed: columns whose pairs are
    cells as well. distance: what `distance.distance_to_nearest` returned.
    Returns JSON types. `cells` begins with the empty ones, the largest in the sample first; then the thin ones.
    `rows_to_fill`, of a cell: the transfer examples it lacks, so that it has as many for each sample example as the
    middle one of its column's cells with data; None where no cell has any.
    """
    names = [name for name in sample if name in transfer]
    pairs = list(combinations([name for name in crossed if name in names], 2))
    columns = [(name,) for name in names] + pairs
    cells = [cell for group in columns for cell in _cells(group, transfer, sample)]
    order = (EMPTY, THINLY, COVERED, UNASKED)
    cells.sort(key=lambda cell: (order.index(cell["status"]), -cell["lacking"], cell["cell"]))
    return {
        "num_transfer": _num_examples(transfer),
        "num_sample": _num_examples(sample),
        "cells": cells,
        EMPTY: [cell["cell"] for cell in cells if cell["status"] == EMPTY],
        THINLY: [cell["cell"] for cell in cells if cell["status"] == THINLY],
        "columns": {_name(group): _column(group, cells) for group in columns},
        "distance": distance,
    }


def _cells(group: tuple[str, ...], transfer: Columns, sample: Columns) -> list[dict[str, Any]]:
    counts_T, counts_E = _counts(group, transfer), _counts(group, sample)
    num_T, num_E = sum(counts_T.values()), sum(counts_E.values())
    ratios = [counts_T[values] / count for values, count in counts_E.items() if counts_T[values]]
    typical = float(np.median(ratios)) if ratios else None
    return [
        _cell(group, values, (counts_T[values], num_T), (counts_E[values], num_E), typical)
        for values in sorted(counts_T.keys() | counts_E.keys())
    ]


def _cell(
    group: tuple[str, ...],
    values: tuple[str, ...],
    transfer: tuple[int, int],
    sample: tuple[int, int],
    typical: float | None,
) -> dict[str, Any]:
    """transfer, sample: examples in the cell, and in all. typical: transfer examples for one of the sample."""
    share_T, share_E = (count / total if total else 0.0 for count, total in (transfer, sample))
    wanted = None if typical is None else math.ceil(typical * sample[0])
    return {
        "cell": " & ".join(f"{name}={value}" for name, value in zip(group, values, strict=True)),
        "column": _name(group),
        "status": _status(share_T, share_E),
        "num_transfer": transfer[0],
        "transfer_share": share_T,
        "num_sample": sample[0],
        "sample_share": share_E,
        "lacking": max(0.0, share_E - share_T),
        "rows_to_fill": None if wanted is None else max(0, wanted - transfer[0]),
    }


def _status(transfer_share: float, sample_share: float) -> str:
    if not sample_share:
        return UNASKED
    if not transfer_share:
        return EMPTY
    return THINLY if transfer_share < THIN * sample_share else COVERED


def _column(group: tuple[str, ...], cells: list[dict[str, Any]]) -> dict[str, Any]:
    """lacking: half the sum of absolute differences of shares (total variation), 0 alike to 1 apart."""
    own = [cell for cell in cells if cell["column"] == _name(group)]
    weak = [cell["rows_to_fill"] for cell in own if cell["status"] in (EMPTY, THINLY)]
    return {
        "num_cells": len(own),
        "num_empty": sum(cell["status"] == EMPTY for cell in own),
        "num_thin": sum(cell["status"] == THINLY for cell in own),
        "lacking": sum(cell["lacking"] for cell in own),
        "rows_to_fill": None if None in weak else sum(weak),
    }


def _counts(group: tuple[str, ...], columns: Columns) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(columns[name] for name in group), strict=True))


def _name(group: tuple[str, ...]) -> str:
    return " & ".join(group)


def _num_examples(columns: Columns) -> int:
    return len(next(iter(columns.values()), ()))
