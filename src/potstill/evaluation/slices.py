"""Slices: named parts of an evaluation set, as masks over its examples."""

# E examples

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def slice_masks(values_by_column: Mapping[str, Sequence[str]]) -> dict[str, NDArray[np.bool_]]:
    """`{"domain=banking": [E] bool}` for every value of every slice column; columns in their order, values sorted.

    The slices of one column share no example and cover them all; slices of different columns overlap.
    """
    masks = {}
    for column, values in values_by_column.items():
        values_E = np.asarray(values, dtype=object)
        for value in sorted(set(values)):
            masks[f"{column}={value}"] = values_E == value
    return masks
