"""Slices as masks over examples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from potstill.evaluation.slices import declared, slice_masks


def masks_of(values: dict[str, list[str]]) -> dict[str, NDArray[np.bool_]]:
    return slice_masks(declared(values), values)


def test_slices_of_a_column_hold_every_example_once() -> None:
    masks = masks_of({"domain": ["bank", "travel", "bank", "home"]})
    assert list(masks) == ["domain=bank", "domain=home", "domain=travel"]
    assert np.sum(list(masks.values()), axis=0).tolist() == [1, 1, 1, 1]
    assert masks["domain=bank"].tolist() == [True, False, True, False]


def test_equal_values_of_two_columns_stay_two_slices() -> None:
    masks = masks_of({"source": ["a", "b"], "label": ["b", "b"]})
    assert list(masks) == ["source=a", "source=b", "label=b"]
    assert masks["source=b"].tolist() == [False, True]
    assert masks["label=b"].tolist() == [True, True]
