"""The difference of two models on the same examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

from potstill.data.batch import IGNORE
from potstill.evaluation.compare import difference

from .echo import scores

RANDOM = np.random.default_rng(0)


def test_difference_of_accuracies_is_first_minus_second() -> None:
    label = np.array([0, 1, 2, 0])
    first, second = scores(np.array([0, 1, 2, 1]), label), scores(np.array([0, 0, 0, 1]), label)
    found = difference(first, second, "accuracy")
    assert (found["metric"], found["value"], found["n"]) == ("accuracy", 0.5, 4)
    low, high = found["interval"]
    assert -1 <= low < 0 < 0.5 < high <= 1, "two of four items leave chance open"
    assert (found["p_value"], found["discordant"]) == (0.5, [2, 0])


def test_unlabelled_examples_count_neither_as_errors_nor_as_pairs() -> None:
    label = np.array([0, 1, IGNORE, IGNORE])
    found = difference(scores(np.array([0, 1, 0, 0]), label), scores(np.array([0, 0, 0, 0]), label), "accuracy")
    assert (found["value"], found["n"]) == (0.5, 2)


def test_perplexities_are_compared_per_token_and_not_per_text() -> None:
    example, label = np.array([0, 0, 0, 1]), np.zeros(4, dtype=int)
    nll = np.array([1.0, 2.0, 3.0, 6.0])
    first, second = scores(label, label, nll, example), scores(label, label, np.zeros(4), example)
    assert difference(first, second, "perplexity")["value"] == pytest.approx(math.exp(3) - 1)


def test_repeating_the_tokens_of_each_text_does_not_narrow_the_interval() -> None:
    """Tokens of one text are not independent: an interval over tokens would shrink by the root of ten here."""
    nll, zeros = RANDOM.gamma(2.0, size=40), np.zeros(40, dtype=int)
    once = difference(scores(zeros, zeros, nll), scores(zeros, zeros, nll**0.5), "perplexity")
    many, zeros = np.repeat(nll, 10), np.zeros(400, dtype=int)
    example = np.repeat(np.arange(40), 10)
    repeated = difference(scores(zeros, zeros, many, example), scores(zeros, zeros, many**0.5, example), "perplexity")
    assert repeated["interval"] == pytest.approx(once["interval"])
    assert repeated["n"] == once["n"] == 40


def test_perplexities_beyond_float64_are_compared_without_a_warning() -> None:
    zeros = np.zeros(3, dtype=int)
    worst = scores(zeros, zeros, np.full(3, 1000.0))
    assert math.isnan(difference(worst, worst, "perplexity")["value"])
