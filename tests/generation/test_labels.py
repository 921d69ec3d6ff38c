from __future__ import annotations

import json

import pytest

from potstill.errors import UserError
from potstill.generation.filters import Label, apply
from potstill.generation.labels import ClosedList
from potstill.generation.parse import choices_of
from tests.generation.test_filters import sample


@pytest.mark.parametrize("answer", ["Book flight.", "book_flight", " BOOK-FLIGHT ", '"Book flight"'])
def test_an_answer_is_spelled_as_the_list_has_it_whatever_its_case_and_punctuation(answer):
    raw = json.dumps({"choices": [{"message": {"content": f"<think>hm</think>{answer}"}}]}).encode()
    [choice] = choices_of(raw, None, ClosedList(["book_flight", "flight"]))
    assert choice.answer == "book_flight"
    assert answer in choice.text, "what was said is kept as it came"


@pytest.mark.parametrize("answer", ["book a flight", "flights", "", "book_flight and flight"])
def test_an_answer_that_is_not_on_the_list_is_left_as_it_is(answer):
    assert ClosedList(["book_flight", "flight"]).spelled(answer) == answer


@pytest.mark.parametrize("names", [["book_flight", "Book flight"], ["yes", "+"]])
def test_labels_that_no_answer_could_be_told_by_are_refused(names):
    with pytest.raises(UserError, match=r"generation\.labels"):
        ClosedList(names)


def test_an_answer_that_is_no_label_is_dropped_with_the_nearest_one():
    kept, dropped = apply({"label": Label(["alarm", "timer"])}, [sample("alarm"), sample("alarms"), sample("x")])
    assert [each.choice.answer for each in kept] == ["alarm"]
    assert [reason for _, reason in dropped] == [
        "label: 'alarms' is none of the 2 labels; nearest: 'alarm'",
        "label: 'x' is none of the 2 labels",
    ]


def test_a_list_of_no_labels_is_refused():
    with pytest.raises(UserError, match="everything would be dropped"):
        Label([])
