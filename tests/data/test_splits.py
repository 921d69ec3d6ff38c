from __future__ import annotations

import pytest
from datasets import Dataset

from potstill.data.content import content_hash
from potstill.data.splits import complete
from potstill.errors import UserError


def table(numbers: list[int]) -> Dataset:
    return Dataset.from_dict({"number": numbers, "content": [content_hash(number) for number in numbers]})


def sides(splits: dict[str, Dataset]) -> dict[int, str]:
    return {number: split for split, members in splits.items() for number in members["number"]}


def test_adding_an_example_or_changing_the_order_moves_no_other() -> None:
    before = sides(complete({"train": table(list(range(300)))}, 0.1, 0.2))
    after = sides(complete({"train": table([1000, *reversed(range(300))])}, 0.1, 0.2))
    assert {number: side for number, side in after.items() if number != 1000} == before


def test_exact_duplicates_never_stand_on_two_sides() -> None:
    splits = complete({"train": table([number % 50 for number in range(400)])}, 0.2, 0.3)
    distinct = [content for members in splits.values() for content in set(members["content"])]
    assert len(distinct) == 50


def test_the_fractions_are_of_what_they_say() -> None:
    """test of all examples, validation of what is left of train."""
    splits = complete({"train": table(list(range(5000)))}, 0.25, 0.2)
    assert len(splits["test"]) == pytest.approx(1000, abs=90)
    assert len(splits["validation"]) == pytest.approx(1000, abs=90)
    assert sum(map(len, splits.values())) == 5000


def test_splits_of_the_source_are_left_alone() -> None:
    given = {"train": table([1, 2]), "validation": table([3]), "test": table([4, 5])}
    assert sides(complete(given, 0.1, 0.2)) == {1: "train", 2: "train", 3: "validation", 4: "test", 5: "test"}


def test_a_missing_test_split_is_not_taken_from_train_alone() -> None:
    splits = complete({"train": table(list(range(200))), "validation": table(list(range(1000, 1200)))}, 0.1, 0.2)
    taken = set(splits["test"]["number"])
    assert min(taken) < 200 <= 1000 <= max(taken)
    assert not taken & (set(splits["train"]["number"]) | set(splits["validation"]["number"]))


@pytest.mark.parametrize(
    ("validation", "test", "key"),
    [(0.0, 0.2, "validation"), (1.0, 0.2, "validation"), (0.1, -0.1, "test"), (0.5, 0.5, "validation")],
)
def test_fractions_that_cannot_be_are_refused(validation: float, test: float, key: str) -> None:
    with pytest.raises(UserError) as error:
        complete({"train": table([1, 2, 3])}, validation, test)
    assert error.value.key == f"data.{key}_fraction"


def test_a_split_that_ends_up_empty_is_refused_before_it_is_evaluated_on() -> None:
    with pytest.raises(UserError, match="validation split has no examples"):
        complete({"train": table([1, 2])}, 0.01, 0.01)


def test_a_source_without_train_or_with_an_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match="no train split"):
        complete({"test": table([1])}, 0.1, 0.2)
    with pytest.raises(UserError, match="Nearest: 'validation'"):
        complete({"train": table([1]), "validatoin": table([2])}, 0.1, 0.2)
