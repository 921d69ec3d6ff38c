"""What an audit reads: every split as texts, labels and columns, without a model and without a tokenizer."""

# E examples, C classes

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from potstill.audit.features import length_buckets
from potstill.audit.texts import Texts
from potstill.config.build import build
from potstill.config.schema import DataConfig
from potstill.data.batch import IGNORE
from potstill.data.build import prepare
from potstill.data.columns import slice_column, tidy
from potstill.data.labels import label_names
from potstill.data.quiet import quiet
from potstill.data.sources import files
from potstill.data.texts import texts_of

Said = dict[str, dict[str, NDArray]]  # of each model, by split: probabilities in the order of the labels, `[E, C]`
Right = dict[str, NDArray[np.float64]]  # of each model, for each test item: 1, or 0, or `nan` where nobody can say

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """E examples: texts, gold labels by name (None where there is none), and per column one value an example."""

    texts: Texts
    labels: list[str | None]
    slices: dict[str, list[str]]
    is_text: bool = True

    def columns(self, like: Part) -> dict[str, list[str]]:
        """The slices, the label where every example has one, and of texts length buckets as `like` has them."""
        labels = {} if None in self.labels else {"label": [str(label) for label in self.labels]}
        lengths = {"length": length_buckets(self.texts.prompt, like.texts.prompt)} if self.is_text else {}
        return {**self.slices, **labels, **lengths}


def read_tables(config: DataConfig) -> tuple[dict[str, Dataset], list[str] | None]:
    """Tidy tables of every split, all gold labels kept, and the names of the labels."""
    splits = build(config.source, "data.source")
    names = label_names(config, splits)
    with quiet():
        return prepare(replace(config, labels_per_class=None), splits, names, seed=0), names


def parts_of(tables: Mapping[str, Dataset], slices: Sequence[str], names: list[str] | None) -> dict[str, Part]:
    return {split: _part(table, slices, names) for split, table in tables.items()}


def read_production(path: str, config: DataConfig) -> Part:
    """Examples of a file with the data's input columns and those of its slices that the file has; no gold labels."""
    key = "production"
    [table] = files(train=str(Path(path).absolute())).values()
    columns = replace(config.columns, label=None, score=None)
    slices = [name for name in config.slices if name in table.column_names]
    for name in set(config.slices) - set(slices):
        log.warning("%s=%s has no column '%s'; coverage does not look at it.", key, path, name)
    with quiet():
        return _part(tidy(table, replace(config, columns=columns, slices=slices), key, None), slices, None)


def _part(table: Dataset, slices: Sequence[str], names: list[str] | None) -> Part:
    labels = [None if names is None or label == IGNORE else names[label] for label in table["label"][:]]
    values = {name: table[slice_column(name)][:] for name in slices}
    return Part(texts_of(table), labels, values, is_text="image" not in table.column_names)
