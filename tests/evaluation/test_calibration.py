"""Confidence against what is right."""

from __future__ import annotations

import math

import numpy as np
import pytest

from potstill.evaluation.calibration import bins, expected_calibration_error, reliability, selective

RANDOM = np.random.default_rng(0)


def test_the_error_is_the_mean_gap_weighted_by_rows() -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 30)
    right = np.array([True] * 9 + [False] + [True] * 12 + [False] * 18)
    found = expected_calibration_error(confidence, right, np.arange(40))
    assert found.value == pytest.approx((10 * 0.05 + 30 * 0.15) / 40)
    assert found.low < found.value < found.high


def test_an_edge_belongs_to_the_bin_below_and_nothing_falls_out() -> None:
    assert bins(np.array([0.0, 1 / 15, 1 / 15 + 1e-9, 1.0])).tolist() == [0, 0, 1, 14]
    confidence = RANDOM.random(500)
    table = reliability(confidence, RANDOM.random(500) < confidence)
    assert sum(each["n"] for each in table) == 500


def test_a_calibrated_model_lies_near_the_diagonal() -> None:
    confidence = RANDOM.uniform(0.5, 1.0, 20_000)
    right = RANDOM.random(20_000) < confidence
    assert expected_calibration_error(confidence, right, np.arange(20_000)).value < 0.02
    assert all(
        abs(each["confidence"] - each["accuracy"]) < 0.06 for each in reliability(confidence, right) if each["n"]
    )


def test_tokens_of_a_text_do_not_narrow_the_interval() -> None:
    confidence, right = RANDOM.uniform(0.5, 1.0, 60), RANDOM.random(60) < 0.6
    once = expected_calibration_error(confidence, right, np.arange(60))
    many = expected_calibration_error(np.repeat(confidence, 9), np.repeat(right, 9), np.repeat(np.arange(60), 9))
    assert (many.low, many.high) == pytest.approx((once.low, once.high))


def test_declining_the_least_sure_raises_accuracy_by_what_they_cost() -> None:
    confidence = np.linspace(0.1, 1.0, 10)
    right = np.array([False, False, *[True] * 8])
    table = selective(confidence, right, np.arange(10))
    assert [(each["n"], each["accuracy"]) for each in table] == [(10, 0.8), (9, pytest.approx(8 / 9)), (8, 1.0)]


def test_a_confidence_of_nan_is_the_least_sure_and_leaves_no_calibration() -> None:
    confidence, right = np.array([math.nan, 0.5, 0.9]), np.array([False, True, True])
    assert selective(confidence, right, np.arange(3))[2]["accuracy"] == pytest.approx(2 / 3)
    assert math.isnan(expected_calibration_error(confidence, right, np.arange(3)).value)
