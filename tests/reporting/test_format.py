"""Numbers as people read them."""

from __future__ import annotations

import pytest

from potstill.reporting.format import difference_unit, format_difference, format_value


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 0.97249, "97.2 %"),
        ("retention", 1.01, "101.0 %"),
        ("perplexity", 12.34567, "12.346"),
        ("n", 1234567, "1,234,567"),
        ("model_bytes", 12, "0.0 kB"),
        ("model_bytes", 999_940, "999.9 kB"),
        ("model_bytes", 1_000_000, "1.0 MB"),
        ("model_bytes", 7_000_000_000, "7.00 GB"),
        ("accuracy", 0.0, "0.0 %"),
        ("accuracy", None, "-"),
    ],
)
def test_a_value_has_its_unit_and_only_a_missing_one_is_a_dash(name: str, value: float | None, text: str) -> None:
    assert format_value(name, value) == text


def test_shares_differ_by_points_and_perplexities_by_themselves() -> None:
    assert format_difference("accuracy", -0.015) + difference_unit("accuracy") == "-1.5 points"
    assert format_difference("perplexity", 0.25) + difference_unit("perplexity") == "+0.250"
    assert format_difference("accuracy", None) == "-"
