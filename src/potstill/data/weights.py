"""How much each training example counts, in proportion to the others."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from potstill.data.columns import WEIGHT, slice_column
from potstill.errors import UserError


def relative(table: Dataset, balance_by: str | None = None) -> Dataset:
    """The table, its weights divided by their mean over all rows (of a language model: scored tokens).

    So a weight says what an example counts beside others, and moves neither the scale of the loss nor what a learning
    rate means. balance_by: a slice, each value of which counts by the mean weight of its rows, however many these are.
    Raises UserError where no example has a weight.
    """
    if WEIGHT not in table.column_names and not balance_by:
        return table
    weights = np.asarray(table[WEIGHT][:], dtype=np.float64) if WEIGHT in table.column_names else np.ones(len(table))
    num_rows = np.asarray(table["num_rows"][:]) if "num_rows" in table.column_names else np.ones(len(table))
    if balance_by:
        _, values = np.unique(table[slice_column(balance_by)][:], return_inverse=True)
        weights = weights / np.bincount(values, num_rows)[values]
    total = float(weights @ num_rows)
    if total == 0:
        problem = "is 0 for every training example, which leaves nothing to train on."
        raise UserError("data.columns.weight", WEIGHT, problem, "Give some examples a weight above 0.")
    found = (weights * num_rows.sum() / total).astype(np.float32)
    rest = table.remove_columns(WEIGHT) if WEIGHT in table.column_names else table
    return rest.add_column(WEIGHT, found)  # type: ignore[call-arg]
