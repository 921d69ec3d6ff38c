"""When a student has paid, and what speaks against making one."""

from __future__ import annotations

from typing import Any

import pytest

from potstill.evaluation.bar import PricesConfig
from potstill.evaluation.economics import break_even, when_not_to_distil

PRICES = PricesConfig(teacher_per_1000=2.0, student_per_1000=0.5, build=3000.0, requests_per_month=1_000_000)


def rules(report: dict[str, Any], prices: PricesConfig) -> dict[str, bool | None]:
    return {each["rule"]: each["applies"] for each in when_not_to_distil(report, break_even(prices))}


def report(*, slices: str = "pass", against: str | None = "BEATS", small_is_good: bool = False) -> dict[str, Any]:
    value = 0.9 if small_is_good else 0.5
    group = {"accuracy": value, "interval": [value - 0.01, value + 0.01], "num_items": 500}
    size = {"model_bytes": 10}
    return {
        "metric": "accuracy",
        "higher_is_better": True,
        "bar": {"quality": 0.8},
        "gates": [{"name": "slices", "outcome": slices, "says": "as said"}],
        "verdict": {"against_baseline": against},
        "models": {"student": {"size": size}, "quantised": {"overall": group, "size": size}},
    }


def test_what_was_built_is_paid_by_what_each_request_saves() -> None:
    found = break_even(PRICES)
    assert found is not None
    assert (found["requests"], found["months"]) == (pytest.approx(2_000_000), pytest.approx(2.0))


def test_a_dearer_student_never_pays() -> None:
    found = break_even(PricesConfig(teacher_per_1000=1.0, student_per_1000=1.0, build=10.0, requests_per_month=5))
    assert found is not None
    assert (found["requests"], found["months"]) == (None, None)


@pytest.mark.parametrize("name", ["teacher_per_1000", "student_per_1000", "build"])
def test_a_price_that_nobody_knows_is_not_taken_for_nothing(name: str) -> None:
    prices = PricesConfig(**{**vars(PRICES), name: None})
    assert break_even(prices) is None
    assert rules(report(), prices)["too little traffic"] is None


def test_rules_apply_where_they_should() -> None:
    assert set(rules(report(), PRICES).values()) == {False}
    few = PricesConfig(**{**vars(PRICES), "requests_per_month": 1000})
    against = rules(report(slices="fail", against="DOES_NOT_BEAT", small_is_good=True), few)
    assert set(against.values()) == {True}
    assert rules(report(against=None), PRICES)["labels alone do as well"] is None
