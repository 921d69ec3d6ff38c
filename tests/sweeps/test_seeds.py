from __future__ import annotations

import pytest
from scipy import stats

from potstill.sweeps.leaderboard import Group
from potstill.sweeps.seeds import Difference, differences, holm
from tests.sweeps.runs import result


def group(*values: float, seeds: tuple[int, ...] | None = None) -> Group:
    pairs = zip(values, seeds or range(len(values)), strict=True)
    return Group([result(f"{seed}", value, seed=seed) for value, seed in pairs])


def lead(best: Group, *others: Group) -> list[Difference]:
    return differences(best, others, "val/accuracy")


def test_a_steady_lead_holds_up_and_an_unsteady_one_of_the_same_size_does_not() -> None:
    best = group(0.80, 0.82, 0.84)
    steady, unsteady = lead(best, group(0.70, 0.719, 0.741), group(0.60, 0.92, 0.64))
    assert steady.verdict == "holds up"
    assert unsteady.verdict == "not told apart at 3 seeds"
    assert steady.interval.value == pytest.approx(0.1)


def test_seeds_are_paired_by_their_number_and_not_by_their_order() -> None:
    best = group(0.80, 0.90, 1.00)
    [one] = lead(best, group(0.899, 0.70, 0.801, seeds=(2, 0, 1)))
    assert one.verdict == "holds up"
    assert one.interval.n == 3


def test_only_seeds_that_both_have_are_compared() -> None:
    [one] = lead(group(0.8, 0.9, 0.7), group(0.5, 0.5, seeds=(2, 7)))
    assert (one.interval.n, one.interval.value) == (1, pytest.approx(0.2))
    assert one.verdict == "one seed: no statement"
    [none] = lead(group(0.8), group(0.5, seeds=(7,)))
    assert none.verdict == "no seed in common: no statement"


def test_a_difference_without_spread_proves_nothing() -> None:
    [one] = lead(group(0.6315789222717285, 0.5), group(0.5, 0.3684210777282715))
    assert (one.p_value, one.verdict) == (None, "no spread at 2 seeds: no statement")


def test_the_p_value_is_that_of_the_paired_t_test() -> None:
    first, second = (0.8, 0.82, 0.86), (0.7, 0.75, 0.72)
    [one] = lead(group(*first), group(*second))
    assert one.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue)


def test_many_comparisons_make_each_of_them_harder_to_believe() -> None:
    other = group(0.70, 0.73, 0.75)
    [alone] = lead(group(0.80, 0.82, 0.86), other)
    among = lead(group(0.80, 0.82, 0.86), *[other] * 50)
    assert alone.verdict == "holds up"
    assert {each.verdict for each in among} == {"not told apart at 3 seeds"}


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
