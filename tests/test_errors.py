from __future__ import annotations

import pytest

from potstill.errors import UserError, nearest, nearest_hint


def test_an_error_names_key_value_problem_and_fix():
    error = UserError("optim.max_steps", "many", "is not a whole number.", "For example: optim.max_steps=10")
    assert str(error) == "optim.max_steps='many' is not a whole number.\nFor example: optim.max_steps=10"
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(("name", "expected"), [("digtis", "digits"), ("digits", "digits"), ("zzz", ""), ("", "")])
def test_the_nearest_name_is_one_that_comes_close(name, expected):
    assert nearest(name, ["digits", "stdlib"]) == expected


def test_where_nothing_comes_close_all_names_are_listed_once_and_in_order():
    assert nearest_hint("zzz", ["b", "a", "b"]) == "There are: a, b."
    assert nearest_hint("zzz", []) == "There are: none."
    assert nearest_hint("digtis", ["digits", "stdlib"]) == "Nearest: 'digits'."
