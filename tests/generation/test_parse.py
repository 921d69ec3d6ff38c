from __future__ import annotations

import json
import re

from potstill.generation.parse import choices_of, usage_of

SOLUTION = re.compile(r"(?s)(?P<rationale>.*?)####\s*(?P<answer>[^\n]+)")


def chat(*contents: str, **more: object) -> bytes:
    choices = [
        {"index": n, "message": {"content": text, **more}, "finish_reason": "stop"} for n, text in enumerate(contents)
    ]
    return json.dumps({"choices": choices[::-1]}).encode()


def test_rationale_and_answer_are_told_apart():
    [choice] = choices_of(chat("2 + 2 is 4.\n#### 4"), SOLUTION)
    assert (choice.rationale, choice.answer, choice.text) == ("2 + 2 is 4.", "4", "2 + 2 is 4.\n#### 4")


def test_an_answer_that_is_not_where_it_should_be_is_none_and_not_the_whole_text():
    [choice] = choices_of(chat("it is four"), SOLUTION)
    assert (choice.answer, choice.rationale) == (None, None)


def test_reasoning_is_kept_apart_wherever_the_endpoint_puts_it():
    [field] = choices_of(chat("4", reasoning_content="two and two"), None)
    [marked] = choices_of(chat("<think>two and two</think>\n4"), None)
    [cut] = choices_of(chat("<think>two and"), None)
    assert (field.answer, field.reasoning) == (marked.answer, marked.reasoning) == ("4", "two and two")
    assert (cut.answer, cut.reasoning) == ("", "two and")


def test_choices_come_in_the_order_of_their_index():
    assert [choice.text for choice in choices_of(chat("a", "b", "c"), None)] == ["a", "b", "c"]


def test_plain_completions_are_read_as_well_and_null_content_is_nothing_said():
    assert choices_of(b'{"choices": [{"text": " a "}]}', None)[0].answer == "a"
    assert choices_of(b'{"choices": [{"message": {"content": null}}]}', None)[0].text == ""


def test_usage_that_is_not_given_is_not_zero():
    assert usage_of(b'{"choices": []}') is None
