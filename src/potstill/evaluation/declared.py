"""Slices that no column of the data names: by length, by groups of labels, by a pattern, by a function of one's own.

Each is named by a `_target_` under `bar.slices`, and makes a column: one value an example.
"""

# E examples

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from potstill.errors import UserError


@dataclass(frozen=True)
class Example:
    """What a slice may be decided by. label: its name, None where there is none. Text is empty for images."""

    text: str
    label: str | None


@dataclass(frozen=True)
class Column:
    """values: one an example, `[E]`. ordered: all there can be, also those that no example has."""

    kind: str
    values: list[str]
    ordered: list[str]


Slicer = Callable[[Sequence[Example]], Column]


def length_buckets(edges: list[int], unit: str = "words") -> Slicer:
    """Texts of fewer than edges[0] units, of edges[0] up to edges[1], and so on. unit: words, characters or bytes."""
    measures: dict[str, Callable[[str], int]] = {
        "words": lambda text: len(text.split()),
        "characters": len,
        "bytes": lambda text: len(text.encode()),
    }
    if unit not in measures:
        raise UserError("bar.slices.unit", unit, "is no unit of length.", f"One of: {', '.join(measures)}")
    if not edges or sorted(set(edges)) != list(edges):
        raise UserError("bar.slices.edges", edges, "do not ascend.", "For example: edges=[5,10,20]")
    names = [f"<{edges[0]}", *(f"{low}-{high - 1}" for low, high in pairwise(edges)), f">={edges[-1]}"]

    def column(examples: Sequence[Example]) -> Column:
        lengths = [measures[unit](example.text) for example in examples]
        return Column("length", [names[sum(length >= edge for edge in edges)] for length in lengths], names)

    return column


def label_groups(groups: dict[str, list[str]]) -> Slicer:
    """Examples by the group that holds their label; `(none)` for those of no group."""
    owners = {str(label): group for group, labels in groups.items() for label in labels}

    def column(examples: Sequence[Example]) -> Column:
        values = [owners.get(str(example.label), "(none)") for example in examples]
        return Column("labels", values, [*groups, *(["(none)"] if "(none)" in values else [])])

    return column


def regex(pattern: str) -> Slicer:
    """`yes` where the pattern is found anywhere in the text, else `no`."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError("bar.slices.pattern", pattern, f"is no pattern: {error}.", "See Python's re.") from error

    def column(examples: Sequence[Example]) -> Column:
        return Column("regex", ["yes" if compiled.search(each.text) else "no" for each in examples], ["yes", "no"])

    return column


def function(name: str) -> Slicer:
    """What a function of one's own, `module.function`, says of each example, as text. It gets an `Example`."""
    module, _, attribute = name.rpartition(".")
    try:
        decide: Callable[[Example], Any] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        fix = "Give module.function, of a module on PYTHONPATH."
        raise UserError("bar.slices.name", name, f"cannot be imported: {error}.", fix) from error

    def column(examples: Sequence[Example]) -> Column:
        values = [str(decide(example)) for example in examples]
        return Column("callable", values, sorted(set(values)))

    return column
