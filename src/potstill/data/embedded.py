"""Data that every installation has: no download, no account."""

from __future__ import annotations

import numpy as np
from datasets import Array2D, Dataset, DatasetDict, Features, Value
from sklearn.datasets import load_digits


def digits() -> DatasetDict:
    """1,797 handwritten digits of 8 x 8 pixels (scikit-learn's copy of the UCI data set), all in `train`.

    Columns: `image` (values in [0, 1]), `label` and `digit` (the label as a slice), both text.
    """
    pixels, targets = load_digits(return_X_y=True)
    images = (np.asarray(pixels, dtype=np.float32) / 16).reshape(-1, 8, 8)
    names = [str(label) for label in np.asarray(targets)]
    features = Features({"image": Array2D((8, 8), "float32"), "label": Value("string"), "digit": Value("string")})
    columns = {"image": list(images), "label": names, "digit": names}
    return DatasetDict({"train": Dataset.from_dict(columns, features=features)})
