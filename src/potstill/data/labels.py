"""Gold labels: their spelling, their order, and which examples keep one."""

from __future__ import annotations

import logging
from typing import Any

from datasets import Dataset, DatasetDict

from potstill.data.batch import IGNORE
from potstill.data.columns import check_columns, spell
from potstill.data.content import content_hash
from potstill.errors import UserError

logger = logging.getLogger(__name__)


def label_names(config: Any, splits: DatasetDict) -> list[str] | None:
    """The classes in the order of the model's outputs; None for a language model, and for embeddings without labels.

    config: the attributes of `schema.DataConfig`. `label_names` there, else every label that occurs in any split,
    sorted (whole numbers by value). Raises UserError where there are fewer than two, or one is named twice.
    """
    if config.task == "causal_lm":
        return None
    check_columns(config, splits)
    if config.task == "embedding" and not config.columns.label:
        return None
    names = [str(name) for name in config.label_names] if config.label_names else _occurring(config, splits)
    if len(set(names)) < max(2, len(names)):
        problem = "must be two different labels at least, each named once."
        fix = "Check data.columns.label, or list them in data.label_names."
        raise UserError("data.label_names", names, problem, fix)
    return names


def keep_labels_per_class(table: Dataset, num_labels: int, seed: int, names: list[str]) -> Dataset:
    """The table with the gold label of `num_labels` examples per class; the others become unlabelled.

    Chosen by the smallest hash of (content, seed): the same seed keeps the same labels for student and baseline, and a
    smaller subset is contained in a larger one. A class with fewer examples keeps them all, and is warned about.
    """
    candidates: dict[int, list[tuple[str, int]]] = {label: [] for label in range(len(names))}
    for index, (content, label) in enumerate(zip(table["content"][:], table["label"][:], strict=True)):
        if label != IGNORE:
            candidates[label].append((content_hash(content, seed), index))
    labels = [IGNORE] * len(table)
    for label, members in candidates.items():
        for _, index in sorted(members)[:num_labels]:
            labels[index] = label
    _warn_short(candidates, num_labels, names)
    return table.remove_columns("label").add_column("label", labels)  # type: ignore[call-arg]


def _occurring(config: Any, splits: DatasetDict) -> list[str]:
    column = config.columns.label
    if column is None:
        fix = "Name the column (data.columns.label=...), or the classes (data.label_names=[...])."
        raise UserError("data.columns.label", None, f"{config.task} needs to know its classes.", fix)
    found = {spell(value, table.features[column]) for table in splits.values() for value in table.unique(column)}
    return sorted((label for label in found if label is not None), key=_by_value)


def _by_value(label: str) -> tuple[bool, int, str]:
    """Whole numbers first, by value; then text."""
    is_number = label.lstrip("-").isdecimal()
    return not is_number, int(label) if is_number else 0, label


def _warn_short(candidates: dict[int, list[tuple[str, int]]], num_labels: int, names: list[str]) -> None:
    short = [names[label] for label, members in candidates.items() if len(members) < num_labels]
    if short:
        listed = ", ".join(short[:5]) + (", ..." if len(short) > 5 else "")
        text = "data.labels_per_class=%d: %d of %d classes have fewer labelled examples and keep them all: %s"
        logger.warning(text, num_labels, len(short), len(names), listed)
