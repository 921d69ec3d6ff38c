"""Runs side by side: the differences are those of an evaluation that had both models in it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from potstill.data.batch import IGNORE
from potstill.evaluation.between_runs import Evaluated, scores_of, side_by_side
from potstill.evaluation.cases import Items, lines
from potstill.evaluation.compare import difference
from potstill.evaluation.scores import Scores
from potstill.evaluation.texts import TextScores
from tests.reporting.evaluated import evaluated

NUM_ITEMS = 400


def classes(seed: int, share: float) -> Scores:
    """Right in about `share` of the examples; every tenth has no label."""
    random = np.random.default_rng(seed)
    label = np.where(np.arange(NUM_ITEMS) % 10 == 9, IGNORE, 3)
    top1 = np.where(random.random(NUM_ITEMS) < share, 3, 5)
    some = random.random(NUM_ITEMS)
    return Scores(top1, some, label, np.arange(NUM_ITEMS), some, some, some, some, NUM_ITEMS)


def tokens(seed: int) -> Scores:
    """Examples of one to seven tokens."""
    random = np.random.default_rng(seed)
    example = np.repeat(np.arange(NUM_ITEMS), np.arange(NUM_ITEMS) % 7 + 1)
    some, n = random.random(len(example)), len(example)
    return Scores(random.integers(0, 2, n), some, np.zeros(n, int), example, some, some, some, some, NUM_ITEMS)


def texts(seed: int) -> TextScores:
    values = np.random.default_rng(seed).random(NUM_ITEMS)
    return TextScores({"ndcg_at_10": values}, np.zeros(NUM_ITEMS), np.arange(NUM_ITEMS), NUM_ITEMS)


def written(scores: Any, metric: str) -> list[dict[str, Any]]:
    hashes = [f"{number:04x}" for number in range(NUM_ITEMS)]
    domains = [f"domain={number % 3}"[7:] for number in range(NUM_ITEMS)]
    items = Items(hashes, [""] * NUM_ITEMS, None, {"domain": domains})
    return list(lines({"student": scores}, items, metric))


def run(name: str, scores: Any, metric: str = "accuracy") -> Evaluated:
    evaluation = evaluated(slices=("0", "1", "2")) | {"metric": metric, "higher_is_better": metric != "perplexity"}
    for model in evaluation["models"].values():
        for group in (model["overall"], *model["slices"].values()):
            group[metric] = group["accuracy"]
    return Evaluated(name, f"runs/{name}", evaluation, written(scores, metric))


@pytest.mark.parametrize(
    ("metric", "pair"),
    [
        ("accuracy", (classes(0, 0.9), classes(1, 0.7))),
        ("perplexity", (tokens(0), tokens(1))),
        ("ndcg_at_10", (texts(0), texts(1))),
    ],
)
def test_a_pair_of_runs_differs_as_the_models_would_within_one_evaluation(metric: str, pair: tuple[Any, Any]) -> None:
    compared = side_by_side([run("a", pair[0], metric), run("b", pair[1], metric)])
    masks = {f"domain={value}": np.arange(NUM_ITEMS) % 3 == value for value in range(3)}
    expected = difference(*pair, metric, masks)
    [found] = compared["pairs"]
    assert found["n"] == expected["n"]
    assert found["value"] == pytest.approx(expected["value"])
    assert found["interval"] == pytest.approx(expected["interval"])
    assert found["p_value"] == expected["p_value"]
    assert found["slices"]["domain=1"]["value"] == pytest.approx(expected["slices"]["domain=1"]["value"])


def test_p_values_are_adjusted_for_as_many_pairs_as_there_are() -> None:
    compared = side_by_side([run(str(seed), classes(seed, share)) for seed, share in enumerate((0.9, 0.9, 0.6))])
    by_pair = {(pair["first"], pair["second"]): pair for pair in compared["pairs"]}
    assert by_pair["0", "2"]["p_holm"] > by_pair["0", "2"]["p_value"]
    assert by_pair["0", "2"]["holds_up"]
    assert not by_pair["0", "1"]["holds_up"]


def test_a_run_against_itself_differs_in_nothing() -> None:
    one = run("a", classes(0, 0.8))
    [pair] = side_by_side([one, copy.deepcopy(one)])["pairs"]
    assert (pair["value"], pair["p_value"], pair["holds_up"]) == (0.0, 1.0, False)


def test_items_without_a_label_count_for_nobody() -> None:
    assert len(scores_of(written(classes(0, 0.8), "accuracy"), "student", "accuracy").label) == NUM_ITEMS * 9 // 10


def test_slices_that_only_one_run_declared_are_left_out() -> None:
    one, other = run("a", classes(0, 0.8)), run("b", classes(1, 0.8))
    del other.evaluation["slices"]["domain=2"]  # type: ignore[attr-defined]
    compared = side_by_side([one, other])
    assert set(compared["runs"][0]["slices"]) == set(compared["pairs"][0]["slices"]) == {"domain=0", "domain=1"}


def test_correlations_are_not_paired_as_if_they_were_means() -> None:
    runs = [run(name, texts(seed), "ndcg_at_10") for seed, name in enumerate("ab")]
    for each in runs:
        each.evaluation["metric"] = "spearman"  # type: ignore[index]
        student = each.evaluation["models"]["student"]
        for group in (student["overall"], *student["slices"].values()):
            group["spearman"] = 0.5
    assert side_by_side(runs)["pairs"] == []
