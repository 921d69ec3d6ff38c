"""Slices that no column names."""

from __future__ import annotations

import pytest

from potstill.errors import UserError
from potstill.evaluation.declared import Example, function, label_groups, length_buckets, regex

EXAMPLES = [Example("one two", "a"), Example("one two three four five", "b"), Example("", None)]


def shout(example: Example) -> bool:
    return example.text.isupper()


def test_lengths_fall_into_buckets_and_every_bucket_is_listed() -> None:
    found = length_buckets([2, 5, 9])(EXAMPLES)
    assert (found.values, found.ordered) == (["2-4", "5-8", "<2"], ["<2", "2-4", "5-8", ">=9"])
    assert length_buckets([7], unit="characters")(EXAMPLES).values == [">=7", ">=7", "<7"]
    assert length_buckets([2], unit="bytes")([Example("\N{EURO SIGN}", None)]).values == [">=2"]


def test_labels_are_grouped_and_the_rest_is_not_lost() -> None:
    found = label_groups({"first": ["a"], "never": ["z"]})(EXAMPLES)
    assert (found.values, found.ordered) == (["first", "(none)", "(none)"], ["first", "never", "(none)"])


def test_a_pattern_that_nothing_matches_still_has_its_slice() -> None:
    found = regex("seven")(EXAMPLES)
    assert (found.values, found.ordered) == (["no"] * 3, ["yes", "no"])


def test_a_function_of_ones_own_decides() -> None:
    found = function("tests.evaluation.test_declared.shout")([*EXAMPLES, Example("NO", "a")])
    assert (found.values, found.ordered) == (["False", "False", "False", "True"], ["False", "True"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: length_buckets([5, 2]),
        lambda: length_buckets([]),
        lambda: length_buckets([5], unit="pages"),
        lambda: regex("("),
        lambda: function("nowhere.at_all"),
        lambda: function("json.nothing"),
        lambda: function("json"),
    ],
)
def test_what_cannot_slice_is_refused(make) -> None:
    with pytest.raises(UserError):
        make()
