"""Tests and intervals against another implementation on fixed inputs, and against the truth in simulation."""

# E examples

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from potstill.evaluation.bar import BarConfig
from potstill.evaluation.compare import difference
from potstill.evaluation.gates import gates
from potstill.evaluation.statistics import (
    holm,
    mcnemar,
    p_worse_than,
    paired_bootstrap,
    paired_shares,
    smallest_difference,
    wilson,
)
from potstill.evaluation.verdict import SHIP, verdict

from .echo import scores

TABLES = [(40, 12, 3, 5), (0, 0, 9, 0), (100, 0, 0, 7), (5, 30, 29, 1), (1, 0, 1, 0)]
NUM_DRAWS = 1000


def answers(both: int, only_first: int, only_second: int, neither: int) -> list[NDArray[np.bool_]]:
    counts = [both, only_first, only_second, neither]
    return [np.repeat(column, counts) for column in ([True, True, False, False], [True, False, True, False])]


@pytest.mark.parametrize("table", TABLES)
def test_mcnemar_is_that_of_statsmodels(table: tuple[int, int, int, int]) -> None:
    both, only_first, only_second, neither = table
    theirs = their_mcnemar([[both, only_first], [only_second, neither]], exact=True)
    p_value, discordant = mcnemar(*answers(*table))
    assert p_value == pytest.approx(theirs.pvalue)
    assert discordant == [only_first, only_second]


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20), (4950, 5500)])
def test_wilson_is_that_of_statsmodels(right: int, n: int) -> None:
    found = wilson(right, n)
    assert (found.low, found.high) == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-12)


@pytest.mark.parametrize("p_values", [[], [0.2], [0.01, 0.04, 0.03, 0.005], [0.9, 0.5, 0.5, 1.0], [0.02, 0.02]])
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    theirs = multipletests(p_values, method="holm")[1] if p_values else []
    assert holm(p_values) == pytest.approx(list(theirs))


def test_the_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    """Of the ratio of two means of skewed, correlated values, as a retention is."""
    random = np.random.default_rng(0)
    shared = random.gamma(4.0, size=(NUM_DRAWS, 150))
    first, second = (shared + random.gamma(shape, size=shared.shape) for shape in (2.0, 4.0))
    truth, covered = 6.0 / 8.0, 0
    for pair in zip(first, second, strict=True):
        found = paired_bootstrap(lambda a, b, axis: a.sum(axis) / b.sum(axis), pair, num_resamples=500)
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / NUM_DRAWS <= 0.97


@pytest.mark.parametrize(("first", "second"), [(0.9, 0.9), (0.97, 0.95), (0.6, 0.75)])
def test_the_interval_of_paired_shares_covers_the_truth_as_often_as_it_says(first: float, second: float) -> None:
    random = np.random.default_rng(0)
    uniform = random.random((NUM_DRAWS, 200))  # one difficulty an item: what one model misses, the other tends to
    own = random.random((2, NUM_DRAWS, 200)) < 0.3
    rights = [
        np.where(is_own, random.random(uniform.shape), uniform) < share
        for is_own, share in zip(own, (first, second), strict=True)
    ]
    found = [paired_shares(*pair) for pair in zip(*rights, strict=True)]
    covered = np.mean([each.low <= first - second <= each.high for each in found])
    assert 0.93 <= covered <= 0.985, "no narrower than it says, and wider only where few items differ"


def test_no_differing_item_is_no_certainty() -> None:
    right = np.ones(30, dtype=bool)
    found = paired_shares(right, right)
    assert found.value == 0.0
    assert found.low < -0.05, "none of thirty differ: one in twenty may still"


def test_equal_models_are_shipped_once_in_twenty_at_most() -> None:
    """Student and baseline are right equally often by construction; whatever else the bar asks for is met."""
    random, bar = np.random.default_rng(0), BarConfig(name="simulated", baseline=True, min_items=1)
    shipped = 0
    for accuracy in (0.6, 0.9):
        for _ in range(NUM_DRAWS // 2):
            difficulty = random.random(250)
            student, baseline = (answered(difficulty, accuracy, random) for _ in range(2))
            report = simulated(student, baseline)
            shipped += verdict(gates(report, bar), None)["outcome"] == SHIP
    assert shipped / NUM_DRAWS <= 0.05
    better = simulated(answered(difficulty, 0.9, random), answered(difficulty, 0.5, random))
    assert verdict(gates(better, bar), None)["outcome"] == SHIP, "or nothing ever ships"


def answered(difficulty_E: NDArray, accuracy: float, random: np.random.Generator) -> NDArray[np.bool_]:
    own_E = random.random(len(difficulty_E)) < 0.3
    return np.where(own_E, random.random(len(difficulty_E)), difficulty_E) < accuracy


def simulated(student_E: NDArray[np.bool_], baseline_E: NDArray[np.bool_]) -> dict:
    label = np.zeros(len(student_E), dtype=int)
    pair = difference(scores(1 - student_E, label), scores(1 - baseline_E, label), "accuracy")
    return {
        "metric": "accuracy",
        "higher_is_better": True,
        "task": "text_classification",
        "bar": {"alpha": 0.05},
        "data": {"num_labelled": len(label)},
        "slices": {},
        "models": {"student": {"overall": {"num_nonfinite": 0, "n": len(label), "against_teacher": None}}},
        "differences": {"student-baseline": pair},
        "contamination": None,
        "found_slices": None,
        "seeds": None,
    }


def test_the_smallest_difference_is_shown_four_times_in_five() -> None:
    random, num_items, share = np.random.default_rng(0), 400, 0.2
    shown = []
    sample = random.random(num_items) < share
    coin = random.random(num_items) < 0.5
    delta = smallest_difference(paired_shares(sample & coin, sample & ~coin))
    for _ in range(NUM_DRAWS):
        differs = random.random(num_items) < share
        first_wins = random.random(num_items) < 0.5 + delta / share / 2
        found = paired_shares(differs & first_wins, differs & ~first_wins)
        shown.append(found.low > 0)
    assert 0.7 <= np.mean(shown) <= 0.9


def test_a_limit_that_the_interval_touches_is_passed_with_the_p_value_that_belongs_to_it() -> None:
    found = paired_shares(*answers(150, 20, 10, 20))
    assert p_worse_than(found, found.low) == pytest.approx(0.975, abs=0.02)
    assert p_worse_than(found, 1.0) == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(p_worse_than(paired_shares(*answers(1, 0, 0, 0)), 0.0))


def test_holm_never_orders_hypotheses_anew() -> None:
    for p_values in itertools.permutations([0.01, 0.02, 0.2]):
        adjusted = holm(list(p_values))
        assert np.argsort(adjusted).tolist() == np.argsort(p_values).tolist()
