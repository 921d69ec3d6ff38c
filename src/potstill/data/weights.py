"""How much each training example counts, in proportion to the others."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from potstill.data.columns import WEIGHT
from potstill.errors import UserError


def relative(table: Dataset) -> Dataset:
    """The table, its weights divided by their mean over all rows (of a language model: scored tokens).

    So a weight says what an example counts beside others, and moves neither the scale of the loss nor what a learning
    rate means. Raises UserError where no example has a weight.
    """
    if WEIGHT not in table.column_names:
        return table
    weights = np.asarray(table[WEIGHT][:], dtype=np.float64)
    num_rows = np.asarray(table["num_rows"][:]) if "num_rows" in table.column_names else np.ones(len(table))
    total = float(weights @ num_rows)
    if total == 0:
        problem = "is 0 for every training example, which leaves nothing to train on."
        raise UserError("data.columns.weight", WEIGHT, problem, "Give some examples a weight above 0.")
    relative = (weights * num_rows.sum() / total).astype(np.float32)
    return table.remove_columns(WEIGHT).add_column(WEIGHT, relative)  # type: ignore[call-arg]
