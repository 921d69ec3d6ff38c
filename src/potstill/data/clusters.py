"""Examples that are nearly the same text stay on one side of every split that we make ourselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from potstill.audit.contamination import NEAR
from potstill.audit.near import similar_pairs
from potstill.audit.texts import normalise
from potstill.data.texts import texts_of

GROUP = "group"  # the column that decides an example's side, instead of its content


def with_groups(tables: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The tables with a column `group`, the same for all examples of one cluster, across tables.

    Two prompts are neighbours where the Jaccard similarity of their character grams is at least `NEAR`; a cluster is
    all that neighbours lead to. It is called by the smallest of its keys (content, or of pairs the anchor), so that an
    example without neighbours keeps its side, and what is added moves only what it is nearly equal to.
    """
    keys = [key for table in tables.values() for key in _keys(table)]
    texts = [normalise(text) for table in tables.values() for text in texts_of(table).prompt]
    named = iter(_names(keys, texts))
    return {split: _with_group(table, [next(named) for _ in range(len(table))]) for split, table in tables.items()}


def _names(keys: Sequence[str], texts: Sequence[str]) -> list[str]:
    distinct = sorted(set(texts))  # copies are neighbours without being compared
    places = {text: place for place, text in enumerate(distinct)}
    pairs = [(pair.first, pair.second) for pair in similar_pairs(distinct, distinct, NEAR)]
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    size = len(distinct)
    links = coo_array((np.ones(len(first)), (first, second)), shape=(size, size))
    _, clusters = connected_components(links, directed=False)
    numbers = [int(clusters[places[text]]) for text in texts]
    names: dict[int, str] = {}
    for number, key in zip(numbers, keys, strict=True):
        names[number] = min(key, names.get(number, key))
    return [names[number] if text else key for number, text, key in zip(numbers, texts, keys, strict=True)]


def _keys(table: Dataset) -> list[str]:
    return table[GROUP if GROUP in table.column_names else "content"][:]


def _with_group(table: Dataset, group: list[str]) -> Dataset:
    kept = table.remove_columns(GROUP) if GROUP in table.column_names else table
    return kept.add_column(GROUP, group)  # type: ignore[call-arg]
