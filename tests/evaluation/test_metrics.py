"""Metrics against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from potstill.evaluation import metrics

NONE = np.array([], dtype=np.int64)


def test_perplexity_of_a_uniform_model_is_its_vocabulary() -> None:
    assert metrics.perplexity(np.full(7, math.log(50))) == pytest.approx(50)


def test_bits_per_byte_counts_bits_and_not_nats() -> None:
    one_token_a_byte = np.full(9, math.log(256))
    assert metrics.bits_per_byte(one_token_a_byte, num_bytes=9) == pytest.approx(8)


def test_bits_per_byte_does_not_depend_on_how_the_text_is_cut_into_tokens() -> None:
    assert metrics.bits_per_byte(np.array([1.0, 2.0, 3.0]), 10) == metrics.bits_per_byte(np.array([6.0]), 10)


def test_a_perplexity_that_overflows_is_infinite_and_warns_nobody() -> None:
    assert metrics.perplexity(np.array([1000.0])) == math.inf


def test_macro_f1_weighs_classes_and_not_rows() -> None:
    gold, top1 = np.array([0, 0, 0, 0, 1]), np.zeros(5, dtype=int)
    assert metrics.macro_f1(top1, gold) == pytest.approx((8 / 9 + 0) / 2)


def test_macro_f1_does_not_count_a_class_that_is_only_predicted() -> None:
    gold, top1 = np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1])
    assert metrics.macro_f1(top1, gold) == pytest.approx((2 / 3 + 1) / 2)


def test_agreement_is_with_the_teacher_and_not_with_the_gold_label() -> None:
    assert metrics.agreement(np.array([1, 1, 2]), np.array([1, 0, 2])) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("metric", "value", "teacher_value"), [("accuracy", 0.45, 0.9), ("perplexity", 20.0, 10.0), ("bits_per_byte", 2, 1)]
)
def test_a_student_half_as_good_retains_a_half_whichever_way_the_metric_points(
    metric: str, value: float, teacher_value: float
) -> None:
    assert metrics.retention(value, teacher_value, metric) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "value",
    [
        metrics.accuracy(NONE, NONE),
        metrics.macro_f1(NONE, NONE),
        metrics.perplexity(NONE),
        metrics.bits_per_byte(NONE, 0),
        metrics.agreement(NONE, NONE),
        metrics.retention(0.5, 0.0, "accuracy"),
    ],
)
def test_nothing_to_measure_is_nan_and_neither_zero_nor_an_error(value: float) -> None:
    assert math.isnan(value)
