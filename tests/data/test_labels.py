from __future__ import annotations

import logging

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from potstill.config.schema import ColumnsConfig
from potstill.data.batch import IGNORE
from potstill.data.content import content_hash
from potstill.data.labels import keep_labels_per_class, label_names
from potstill.errors import UserError
from tests.data.examples import build, config, queries


def labelled(values: list) -> Dataset:
    return Dataset.from_dict({"text": [str(index) for index in range(len(values))], "intent": values})


def names(*splits: Dataset, **changes: object) -> list[str] | None:
    return label_names(
        config(slices=[], **changes), DatasetDict(zip(("train", "validation", "test"), splits, strict=False))
    )


def test_a_label_that_only_the_test_split_has_is_a_class_too() -> None:
    assert names(labelled(["b", "a"]), labelled(["a"]), labelled(["c"])) == ["a", "b", "c"]


def test_whole_numbers_are_ordered_by_value_not_by_spelling() -> None:
    assert names(labelled([10, 9, 2, -1])) == ["-1", "2", "9", "10"]
    assert names(labelled(["10", "9", "x"])) == ["9", "10", "x"]


def test_a_gap_in_a_column_of_numbers_does_not_rename_its_classes() -> None:
    """Readers give such a column as floats: 1 comes as 1.0."""
    assert names(labelled([1.0, 2.0, None, float("nan")])) == ["1", "2"]


def test_empty_null_and_minus_one_mean_unlabelled() -> None:
    features = Features({"text": Value("string"), "intent": ClassLabel(names=["no", "yes"])})
    table = Dataset.from_dict({"text": ["a", "b", "c"], "intent": [1, -1, 0]}, features=features)
    assert names(table) == ["no", "yes"]
    assert names(labelled(["a", "", None, "b"])) == ["a", "b"]


def test_names_given_by_the_user_keep_their_order() -> None:
    assert names(labelled(["a", "b"]), label_names=["b", "a", 3]) == ["b", "a", "3"]


def test_a_language_model_has_no_classes() -> None:
    assert names(labelled(["a"]), task="causal_lm") is None


@pytest.mark.parametrize("values", [["a", "a"], [None, "b"]])
def test_fewer_than_two_classes_are_refused(values: list) -> None:
    with pytest.raises(UserError, match="two different labels"):
        names(labelled(values))


def test_no_label_column_and_no_names_is_refused() -> None:
    with pytest.raises(UserError) as error:
        names(labelled(["a", "b"]), columns=ColumnsConfig(text="text"))
    assert error.value.key == "data.columns.label"


def test_a_label_outside_the_given_names_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Nearest: 'travels'") as error:
        build({"train": queries(60)}, config(label_names=["pay", "chat", "travels"]))
    assert error.value.key == "data.label_names"


def subset(num_labels: int, seed: int, order: range = range(60)) -> dict[int, int]:
    """`{number: label}` of the examples that keep their label."""
    columns = {"number": list(order), "label": [number % 3 for number in order]}
    table = Dataset.from_dict(columns | {"content": [content_hash(number) for number in order]})
    kept = keep_labels_per_class(table, num_labels, seed, ["a", "b", "c"])
    assert len(kept) == len(order), "an example without a label must stay in the transfer set"
    return {number: label for number, label in zip(kept["number"], kept["label"], strict=True) if label != IGNORE}


def test_each_class_keeps_exactly_so_many_labels_and_the_right_ones() -> None:
    kept = subset(4, seed=0)
    assert sorted(kept.values()) == [0] * 4 + [1] * 4 + [2] * 4
    assert all(label == number % 3 for number, label in kept.items())


def test_the_choice_depends_on_content_and_seed_but_not_on_order() -> None:
    assert subset(4, seed=0) == subset(4, seed=0, order=range(59, -1, -1))
    assert subset(4, seed=0) != subset(4, seed=1)


def test_more_labels_keep_those_that_fewer_labels_had() -> None:
    assert subset(3, seed=0).items() <= subset(8, seed=0).items()


def test_a_class_with_too_few_keeps_all_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(subset(50, seed=0)) == 60
    assert "3 of 3 classes" in caplog.text
    assert "a, b, c" in caplog.text


def test_labels_per_class_spares_validation_and_test() -> None:
    data = build({"train": queries(200)}, config(labels_per_class=2))
    assert sum(label != IGNORE for label in data.examples["train"]["label"]) == 6
    assert IGNORE not in data.examples["validation"]["label"]
    assert IGNORE not in data.examples["test"]["label"]
