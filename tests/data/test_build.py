from __future__ import annotations

from typing import Any

import datasets
import pytest

from potstill.config.schema import ColumnsConfig
from potstill.data.build import own_tokenizer
from potstill.errors import UserError
from tests.data.examples import CHAT, build, config, queries, tokenizer


def test_a_text_task_without_tokenizer_is_refused() -> None:
    with pytest.raises(UserError) as error:
        build({"train": queries(60)}, tokenizer=None)
    assert error.value.key == "student.tokenizer"


def test_labels_per_class_is_refused_where_there_are_no_classes() -> None:
    data = config(task="causal_lm", columns=ColumnsConfig(text="text"), labels_per_class=3)
    with pytest.raises(UserError) as error:
        build({"train": queries(60)}, data)
    assert error.value.key == "data.labels_per_class"


def test_other_sources_bring_no_tokenizer() -> None:
    assert own_tokenizer(datasets.DatasetDict({"train": queries(3)})) is None


def test_no_progress_bar_reaches_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    build({"train": queries(60)}, config(labels_per_class=2))
    assert "examples/s" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "columns",
    [{"text": "text"}, {"prompt": "intent", "completion": "text"}, {"messages": "messages"}],
    ids=lambda columns: next(iter(columns)),
)
def test_every_form_of_text_reaches_a_batch(columns: dict[str, str]) -> None:
    table = queries(80).map(_with_messages)
    data = config(task="causal_lm", columns=ColumnsConfig(**columns), max_length=64)
    built = build({"train": table}, data, tokenizer=tokenizer(chat_template=CHAT))
    batch = next(iter(built.train_dataloader()))
    assert batch.labels.shape == batch.inputs["input_ids"].shape
    assert all(built.example_text("test"))


def _with_messages(row: dict[str, Any]) -> dict[str, Any]:
    turns = [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["intent"]}]
    return {"messages": turns}


def test_one_source_may_be_split_and_the_same_source_is_always_split_the_same() -> None:
    first, second = build({"train": queries(120)}), build({"train": queries(120).shuffle(seed=1)}, seed=7)
    for split in ("train", "validation", "test"):
        assert sorted(first.example_text(split)) == sorted(second.example_text(split))
