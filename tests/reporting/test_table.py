"""The terminal table, as it arrives in a pipe, in a narrow window and in one that knows only ASCII."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from potstill.reporting.table import print_evaluation

from .example import example


def printed(evaluation: dict[str, Any], encoding: str = "utf-8", **options: Any) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_evaluation(evaluation, Console(file=stream, width=80, **options))
    stream.seek(0)
    return stream.read()


def many(count: int) -> dict[str, Any]:
    """Slices of which each is better than the one before."""
    values: list[float | None] = [0.5, *(number / 100 for number in range(count))]
    names = [f"domain=kitchen_and_dining_{number}" for number in range(count)]
    return example(dict.fromkeys(("teacher", "student", "baseline"), values), names)


def positions(text: str, *parts: str) -> list[int]:
    return [text.index(part) for part in parts]


def test_a_pipe_gets_no_escape_codes_and_no_line_beyond_80_columns() -> None:
    text = printed(many(18))
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "kitchen_and_dining_14" in text, "names of ordinary length stay on one line"


def test_no_color_is_respected_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    colour_codes = [f"\x1b[{code}" for code in (31, 32, 33, 34, 35, 36)]
    assert not any(code in printed(example(), force_terminal=True) for code in colour_codes)


def test_a_terminal_that_knows_only_ascii_gets_only_ascii() -> None:
    assert printed(many(18), encoding="ascii").isascii()


def test_the_worst_slice_of_the_student_comes_first() -> None:
    text = printed(example({"teacher": [0.9, 0.1, 0.9, 0.9], "student": [0.8, 0.9, None, 0.7]}, ["d=a", "d=b", "d=c"]))
    rows = [line.split()[0] for line in text.splitlines() if line[:2] in ("a ", "b ", "c ")]
    assert rows == ["c", "a", "b"], "a slice without a value comes last"


def test_the_worst_slice_of_a_language_model_is_the_most_perplexed_one() -> None:
    text = printed(example({"student": [20.0, 10.0, 30.0]}, ["package=os", "package=json"], metric="perplexity"))
    assert text.index("json") < text.index("os  ")
    assert "30.000" in text


def test_a_long_list_is_cut_and_says_where_the_rest_is() -> None:
    text = printed(many(18))
    assert "... and 3 more in evaluation.json" in text
    assert "kitchen_and_dining_15" not in text
    assert "more in" not in printed(many(15))


def test_a_slice_name_that_looks_like_markup_is_shown_as_it_is() -> None:
    text = printed(example(slices=["[link]=[unk]", "[link]=[/bold]"]))
    assert min(positions(text, "[link]", "[unk]", "[/bold]")) > 0


def test_slices_of_several_columns_keep_their_columns() -> None:
    assert min(positions(printed(example(slices=["domain=bank", "label=bank"])), "domain=bank", "label=bank")) > 0


def test_the_difference_is_shown_in_points_with_its_interval() -> None:
    line = "student - baseline in accuracy: +20.0 points, 95 % interval [+15.1, +25.0],"
    assert line in printed(example())


def test_a_teacher_alone_without_slices_is_shown() -> None:
    evaluation = example({"teacher": [0.9]}, slices=[]) | {"differences": {}}
    text = printed(evaluation)
    assert "90.0 %" in text
    assert "slice" not in text
    assert "agreement" not in text


def test_costs_carry_their_units() -> None:
    text = printed(example())
    assert min(positions(text, "22,713,216", "90.9 MB", "12.34 ms", "1234.50 ms")) > 0
