"""Examples as texts: what is asked and what is answered, of every form of data."""

from __future__ import annotations

from datasets import Dataset

from potstill.data.texts import texts_of


def table(**columns: list) -> Dataset:
    num = len(next(iter(columns.values())))
    return Dataset.from_dict({**columns, "content": [f"hash {number}" for number in range(num)], "label": [0] * num})


def test_the_answer_is_what_a_model_should_say_and_the_rest_is_the_prompt() -> None:
    turns = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three?"},
        {"role": "assistant", "content": "four"},
    ]
    for columns, prompt, answer in (
        ({"text": ["a"]}, ["a"], None),
        ({"text": ["a"], "text_pair": ["b"]}, ["a\nb"], None),
        ({"prompt": ["a"], "completion": ["b"]}, ["a"], ["b"]),
        ({"anchor": ["a"], "positive": ["b"], "negative": ["c"]}, ["a"], ["b"]),
        ({"messages": [turns]}, ["be kind\none?\nthree?"], ["two\nfour"]),
    ):
        found = texts_of(table(**columns))
        assert (found.prompt, found.answer) == (prompt, answer)


def test_images_are_known_by_their_pixels() -> None:
    assert texts_of(table(image=[[[0.0]], [[1.0]]])).prompt == ["hash 0", "hash 1"]
