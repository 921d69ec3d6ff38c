from __future__ import annotations

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from potstill.config.schema import ColumnsConfig
from potstill.data.columns import check_columns, input_columns, tidy
from potstill.errors import UserError
from tests.data.examples import build, config, queries


@pytest.mark.parametrize(
    ("changes", "key", "hint"),
    [
        ({"columns": ColumnsConfig(text="txet", label="intent")}, "data.columns.text", "Nearest: 'text'"),
        ({"columns": ColumnsConfig(text="text", label="intnet")}, "data.columns.label", "Nearest: 'intent'"),
        ({"slices": ["domian"]}, "data.slices", "Nearest: 'domain'"),
    ],
)
def test_a_missing_column_is_refused_with_the_nearest(changes: dict, key: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint) as error:
        check_columns(config(**changes), {"train": queries(3)})
    assert error.value.key == key


def test_a_column_that_only_one_split_lacks_is_refused() -> None:
    with pytest.raises(UserError, match="not a column of the test split"):
        check_columns(config(), {"train": queries(3), "test": queries(3).remove_columns("domain")})


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(UserError, match="train split has no examples"):
        check_columns(config(), {"train": queries(0)})


@pytest.mark.parametrize(
    "columns",
    [{}, {"prompt": "p"}, {"text": "t", "messages": "m"}, {"prompt": "p", "completion": "c", "text": "t"}],
)
def test_a_language_model_needs_exactly_one_form_of_text(columns: dict) -> None:
    with pytest.raises(UserError, match="exactly one"):
        input_columns(config(task="causal_lm", columns=ColumnsConfig(**columns)))


def test_a_null_input_is_refused_with_the_example_it_stands_in() -> None:
    table = Dataset.from_dict({"text": ["a", "b", None], "intent": ["x", "y", "x"]})
    with pytest.raises(UserError, match="null in example 2 of the train split"):
        tidy(table, config(slices=[]), "train", ["x", "y"])


def test_a_column_of_numbers_is_not_taken_for_text() -> None:
    table = Dataset.from_dict({"text": [1, 2], "intent": ["x", "y"]})
    with pytest.raises(UserError, match="holds int, not text") as error:
        tidy(table, config(slices=[]), "train", ["x", "y"])
    assert error.value.key == "data.columns.text"


def test_slices_are_text_whatever_they_were() -> None:
    kind = ClassLabel(names=["short", "long"])
    features = Features({"text": Value("string"), "kind": kind, "year": Value("float64")})
    table = Dataset.from_dict({"text": ["a", "b"], "kind": [0, 1], "year": [2020.0, None]}, features=features)
    tidied = tidy(table, config(slices=["kind", "year"]), "train", None)
    assert tidied["slice:kind"][:] == ["short", "long"]
    assert tidied["slice:year"][:] == ["2020", "(none)"]


def test_the_label_may_be_a_slice_and_columns_may_bear_our_names() -> None:
    table = queries(40).rename_columns({"text": "label", "intent": "content", "domain": "input_ids"})
    data = build(
        {"train": table}, config(columns=ColumnsConfig(text="label", label="content"), slices=["content", "input_ids"])
    )
    assert set(data.slice_values("test")) == {"content", "input_ids"}
    assert set(data.slice_values("test")["content"]) <= {"pay", "travel", "chat"}


def test_content_is_of_the_inputs_alone() -> None:
    """Else one text under two labels, or in two splits of the source, could stand in train and in test."""
    table = Dataset.from_dict({"text": ["a", "a"], "intent": ["x", "y"], "domain": ["d", "e"]})
    tidied = [tidy(table, config(), split, ["x", "y"]) for split in ("train", "validation")]
    assert len({content for table in tidied for content in table["content"]}) == 1


def test_a_group_stays_on_one_side_of_every_split() -> None:
    def sides(group: str | None) -> dict[int, set[str]]:
        table = queries(60).add_column("asked", [number // 3 for number in range(60)])  # type: ignore[call-arg]
        data = build({"train": table}, config(columns=ColumnsConfig(text="text", label="intent", group=group)))
        found: dict[int, set[str]] = {}
        for split, examples in data.examples.items():
            for text in examples["text"][:]:
                found.setdefault(int(text.split()[-1]) // 3, set()).add(split)
        return found

    assert any(len(splits) > 1 for splits in sides(None).values())
    assert all(len(splits) == 1 for splits in sides("asked").values())
