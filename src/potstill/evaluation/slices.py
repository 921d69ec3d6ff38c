"""Slices: named parts of an evaluation set, as masks over its examples."""

# E examples

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Slice:
    """One value of one slice column. kind: `column` of the data, or what made it: length, labels, regex, callable."""

    kind: str
    column: str
    value: str


def declared(
    values_by_column: Mapping[str, Sequence[str]], kinds: Mapping[str, tuple[str, Sequence[str]]] | None = None
) -> dict[str, Slice]:
    """`{"domain=banking": Slice}` for every value of every slice column; columns in their order.

    kinds: of a column that was made, how, and its values in their order, those included that no example has. Of other
    columns the values are sorted.
    """
    found = {}
    for column, values in values_by_column.items():
        kind, ordered = (kinds or {}).get(column, ("column", sorted(set(values))))
        found |= {f"{column}={value}": Slice(kind, column, value) for value in ordered}
    return found


def slice_masks(
    slices: Mapping[str, Slice], values_by_column: Mapping[str, Sequence[str]]
) -> dict[str, NDArray[np.bool_]]:
    """`{"domain=banking": [E] bool}`.

    The slices of one column share no example; slices of different columns overlap.
    """
    columns = {column: np.asarray(values, dtype=object) for column, values in values_by_column.items()}
    return {name: columns[each.column] == each.value for name, each in slices.items()}
