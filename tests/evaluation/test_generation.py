"""Generated answers against their references."""

from __future__ import annotations

import math

import pytest

from potstill.evaluation.generation import (
    exact_match,
    final_number,
    measure_generation,
    numeric_match,
    repetition,
    rouge_l,
    score_answers,
)


def test_spelling_of_blanks_and_capitals_is_no_difference() -> None:
    assert exact_match(" The  Answer\n", "the answer")
    assert exact_match("\N{FULLWIDTH DIGIT FOUR}", "4")
    assert not exact_match("the answers", "the answer")


def test_rouge_counts_words_in_common_order() -> None:
    """Lin 2004, section 3: police killed the gunman; the gunman kill police shares two words in order."""
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(2 / 4)
    assert (rouge_l("", ""), rouge_l("", "word"), rouge_l("a b", "a b c d")) == (1.0, 0.0, pytest.approx(4 / 6))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7\n#### 7", 7.0),
        ("#### 1,234.50 dollars, not 9", 1234.5),
        ("#### 5 ... #### -6", -6.0),
        ("first 3, then 8", 8.0),
        ("none", None),
        ("#### none, though 4 before", 4.0),
        ("12 apples #### none", None),
    ],
)
def test_the_final_number_is_the_one_behind_the_mark(text: str, number: float | None) -> None:
    assert final_number(text) == number


def test_a_reference_without_a_number_is_not_judged_by_one() -> None:
    assert numeric_match("4", "no number") is None
    assert numeric_match("no number", "#### 4") is False
    assert numeric_match("It is 1,000.", "#### 1000") is True


def test_going_in_circles_is_seen() -> None:
    assert repetition("a b c d " * 10) > 0.8
    assert repetition("one two three four five six seven eight") == 0.0
    assert repetition("too short") == 0.0


def test_rates_are_means_over_answers() -> None:
    answers = ["#### 4", "", "x y z w " * 9, "#### 5"]
    columns = score_answers(
        answers,
        ["#### 4", "#### 1", "#### 2", "#### 3"],
        truncated=[False, False, True, False],
        is_valid=lambda text: "####" in text,
    )
    found = measure_generation(columns)
    assert found["n"] == 4
    rates = ("exact_match", "numeric_match", "truncated", "repetitive", "empty", "format_valid")
    assert [found[name] for name in rates] == [0.25, 0.25, 0.25, 0.25, 0.25, 0.5]
    assert found["length_ratio"] == pytest.approx((2 + 36 + 2) / 8)


def test_no_answers_measure_nothing() -> None:
    found = measure_generation(score_answers([], [], truncated=[]))
    assert found.pop("n") == 0
    assert all(math.isnan(value) for value in found.values())
