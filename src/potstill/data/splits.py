"""Who is trained on, validated on, tested on: decided by each example's content, never by its place in the file."""

from __future__ import annotations

from collections.abc import Iterable

from datasets import Dataset, concatenate_datasets

from potstill.data.content import unit_interval
from potstill.errors import UserError, nearest_hint

SPLITS = ("train", "validation", "test")


def complete(splits: dict[str, Dataset], validation_fraction: float, test_fraction: float) -> dict[str, Dataset]:
    """The splits, with those the source lacks taken out of those it has.

    test: that fraction of all examples; validation: that fraction of what is left of train. Every table has a column
    `content`, the hash that decides, so adding an example moves no other and exact duplicates stay together; or, of
    pairs, `group`, so that all pairs of one anchor do.
    Raises UserError for fractions that cannot be, a source without train, and a split that ends up empty.
    """
    check_fractions(validation_fraction, test_fraction)
    _check_names(splits)
    splits = dict(splits)
    if "test" not in splits:
        parts = {name: cut_off(table, "test", test_fraction) for name, table in splits.items()}
        splits = {name: rest for name, (rest, _) in parts.items()}
        splits["test"] = concatenate_datasets([taken for _, taken in parts.values()])
    if "validation" not in splits:
        splits["train"], splits["validation"] = cut_off(splits["train"], "validation", validation_fraction)
    for name in SPLITS:
        check_not_empty(name, splits[name])
    return {name: splits[name] for name in SPLITS}


def cut_off(table: Dataset, salt: str, fraction: float) -> tuple[Dataset, Dataset]:
    """`(rest, taken)` by `content` or `group`; the salt names the split, so that two cuts are independent."""
    column = "group" if "group" in table.column_names else "content"
    taken = [unit_interval(content, salt) < fraction for content in table[column][:]]
    return select(table, (not is_taken for is_taken in taken)), select(table, taken)


def select(table: Dataset, mask: Iterable[bool]) -> Dataset:
    return table.select([index for index, keep in enumerate(mask) if keep])


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    for key, value in (("validation", validation_fraction), ("test", test_fraction)):
        if not 0 < value < 1:
            fix = f"For a tenth: data.{key}_fraction=0.1"
            raise UserError(f"data.{key}_fraction", value, "must lie strictly between 0 and 1.", fix)
    if validation_fraction + test_fraction >= 1:
        problem = f"together with data.test_fraction={test_fraction} leaves nothing to train on."
        raise UserError("data.validation_fraction", validation_fraction, problem, "Give two that sum to less than 1.")


def check_not_empty(name: str, table: Dataset) -> None:
    if not len(table):
        problem = f"the {name} split has no examples."
        fix = f"Give the source more examples or a {name} split of its own, or raise data.{name}_fraction."
        raise UserError("data.source", name, problem, fix if name != "train" else "Give the source training examples.")


def _check_names(splits: dict[str, Dataset]) -> None:
    for name in splits:
        if name not in SPLITS:
            raise UserError("data.source", name, "is not a split potstill knows.", nearest_hint(name, SPLITS))
    if "train" not in splits:
        raise UserError("data.source", sorted(splits), "has no train split.", "Give the source training examples.")
