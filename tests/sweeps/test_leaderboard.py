from __future__ import annotations

import pytest

from potstill.errors import UserError
from potstill.sweeps.leaderboard import choose_cost, choose_metric, front, grouped, is_higher_better, ranked
from tests.sweeps.runs import result


def places(values: list[float], *, higher: bool) -> dict[str, int]:
    groups = grouped(result(str(number), value, lr=number) for number, value in enumerate(values))
    return {group.runs[0].name: place for place, group in ranked(groups, "val/accuracy", higher_is_better=higher)}


def test_the_ranking_turns_with_the_direction_and_ties_share_a_place() -> None:
    assert places([0.5, 0.9, 0.5, 0.1], higher=True) == {"1": 1, "0": 2, "2": 2, "3": 4}
    assert places([0.5, 0.9, 0.5, 0.1], higher=False) == {"3": 1, "0": 2, "2": 2, "1": 4}


def test_runs_that_differ_in_the_seed_alone_are_one_group() -> None:
    groups = grouped([result("a", 0.5, seed=0, lr=1), result("b", 0.7, seed=1, lr=1.0), result("c", 0.9, lr=2)])
    assert [[run.name for run in group.runs] for group in groups] == [["a", "b"], ["c"]]
    assert groups[0].mean("val/accuracy") == pytest.approx(0.6)
    assert groups[0].deviation("val/accuracy") == pytest.approx(0.1 * 2**0.5)
    assert groups[1].deviation("val/accuracy") is None


def test_a_seed_that_ran_twice_counts_once() -> None:
    [group] = grouped([result("a", 0.4), result("b", 0.6), result("c", 0.9, seed=1)])
    assert group.by_seed("val/accuracy") == {0: pytest.approx(0.5), 1: 0.9}


def test_the_default_metric_is_the_accuracy_and_without_one_the_loss() -> None:
    both = result("a", 0.5, metrics={"val/loss": 1.0, "val/accuracy": 0.5})
    loss = result("b", 1.0, metric="val/loss")
    assert choose_metric([loss, both], None) == "val/accuracy"
    assert choose_metric([loss], None) == "val/loss"


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="Nearest: 'val/accuracy'"):
        choose_metric([result("a", 0.5)], "val/acuracy")
    with pytest.raises(UserError, match="cost='cost/parameter'"):
        choose_cost([result("a", 0.5, cost=1)], "cost/parameter")
    assert choose_cost([result("a", 0.5)], None) is None


@pytest.mark.parametrize(
    ("metric", "is_higher"),
    [
        ("val/accuracy", True),
        ("evaluation/macro_f1", True),
        ("evaluation/retention", True),
        ("val/loss", False),
        ("evaluation/perplexity", False),
        ("cost/latency_ms_p95", False),
        ("train/seconds", False),
    ],
)
def test_the_direction_is_that_of_the_name(metric: str, is_higher: bool) -> None:
    assert is_higher_better(metric) is is_higher


def test_a_direction_nobody_knows_is_asked_for_and_not_guessed() -> None:
    with pytest.raises(UserError, match="upside down"):
        is_higher_better("val/bleu")
    assert is_higher_better("val/bleu", True)


def test_the_front_holds_what_nothing_else_beats_in_both() -> None:
    points = [(1, 0.5), (2, 0.7), (2, 0.6), (3, 0.7), (3, 0.9), (None, 1.0), (1, 0.5)]
    assert front(points, higher_is_better=True) == [True, True, False, False, True, False, True]
    assert front([(1, 0.5), (2, 0.7)], higher_is_better=False) == [True, False]
