"""The only place where a loss is divided by a number of rows."""

# N rows of one micro-batch

from __future__ import annotations

import torch
from torch import Tensor


def mean_over(values_N: Tensor, total_rows: Tensor | int) -> Tensor:
    """This micro-batch's contribution to the mean over `total_rows` rows, a scalar in the unit of `values_N`.

    contribution = sum_n values_n / total_rows

    `total_rows` counts the rows of the whole global batch: all micro-batches, all ranks. The contributions then add up
    to the mean however the batch was cut. Averaging the means of micro-batches instead weighs a row by the company it
    happens to keep, and Adam hides the difference.

    A total of 0 means that there is no row to score: the values sum to 0, and so does the result, with a live graph
    (a rank without rows must still take part in the backward pass).
    """
    if isinstance(total_rows, Tensor):
        return values_N.sum() / torch.clamp(total_rows, min=1)
    return values_N.sum() / max(total_rows, 1)


def weight_of_row(weight: float, total_rows: Tensor | int) -> Tensor | float:
    """What one row's value counts for in `weight` times the mean over `total_rows` rows, known before any value is."""
    if isinstance(total_rows, Tensor):
        return weight / torch.clamp(total_rows, min=1)
    return weight / max(total_rows, 1)
