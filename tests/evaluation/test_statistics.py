"""Intervals: their coverage, their pairing, and their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from potstill.evaluation.statistics import paired_bootstrap, paired_t_interval


def mean_difference(first: NDArray, second: NDArray, axis: int = -1) -> NDArray:
    return first.mean(axis) - second.mean(axis)


def test_t_interval_is_that_of_the_paired_t_test() -> None:
    first, second = [0.91, 0.93, 0.90, 0.95], [0.88, 0.91, 0.89, 0.90]
    interval = paired_t_interval(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (interval.value, interval.n) == (pytest.approx(0.0275), 4)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_seeds_that_all_differ_alike_give_an_interval_without_width() -> None:
    interval = paired_t_interval([3.0, 2.0, 5.0], [2.0, 1.0, 4.0])
    assert (interval.low, interval.value, interval.high) == (1.0, 1.0, 1.0)


def test_a_missing_seed_is_not_paired_with_another() -> None:
    with pytest.raises(ValueError, match="3 and 2 values"):
        paired_t_interval([1.0, 2.0, 3.0], [1.0, 2.0])


def test_one_pair_has_a_difference_and_no_interval() -> None:
    for interval in (
        paired_t_interval([1.0], [0.5]),
        paired_bootstrap(mean_difference, [np.array([1.0]), np.array([0.5])]),
    ):
        assert (interval.value, interval.n) == (0.5, 1)
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)


def test_bootstrap_interval_holds_the_true_difference_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)

    def holds() -> bool:
        first, second = random.normal(0.3, 1, 80), random.normal(0, 1, 80)
        interval = paired_bootstrap(mean_difference, [first, second], num_resamples=200)
        return interval.low <= 0.3 <= interval.high

    assert 0.89 <= np.mean([holds() for _ in range(200)]) <= 0.99


def test_bootstrap_draws_both_models_on_the_same_examples() -> None:
    difficulty = np.random.default_rng(0).normal(0, 10, 200)
    interval = paired_bootstrap(mean_difference, [difficulty + 1, difficulty])
    assert (interval.low, interval.high) == pytest.approx((1, 1))


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    columns = [np.random.default_rng(0).normal(size=50), np.zeros(50)]
    assert paired_bootstrap(mean_difference, columns) == paired_bootstrap(mean_difference, columns)
    assert paired_bootstrap(mean_difference, columns) != paired_bootstrap(mean_difference, columns, seed=1)
