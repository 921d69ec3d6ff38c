"""The budget goes where the failures are, and no item is taken twice."""

from __future__ import annotations

import numpy as np
import pytest

from potstill.mining.clusters import Clusters, cluster, described, latent_vectors
from potstill.mining.propose import nearest_picks, quotas, random_picks


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"),
    [([50, 30, 20], 10, [5, 3, 2]), ([3, 3, 3], 10, [4, 3, 3]), ([9, 1], 1, [1, 0]), ([2, 1], 100, [67, 33])],
)
def test_quotas_add_up_to_the_budget_in_proportion(sizes, budget, expected):
    assert quotas(sizes, budget) == expected


def at(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_members_take_turns_and_nothing_is_taken_twice():
    failures, pool = at(0, 10, 90), at(1, 2, 3, 11, 45, 91, 180)
    clusters = Clusters(np.array([0, 0, 1]), np.array([0.1, 0.1, 0.0]), at(5, 90))
    picks = nearest_picks(clusters, failures, pool, 6)
    assert [(pick.item, pick.cluster, pick.failure) for pick in picks[:2]] == [(0, 0, 0), (3, 0, 1)], "one each first"
    assert [pick.item for pick in picks if pick.cluster == 1] == [5, 4]
    assert len({pick.item for pick in picks}) == 6
    assert picks[0].distance == pytest.approx(1 - np.cos(np.deg2rad(1)), abs=1e-6)


def test_a_budget_beyond_the_pool_takes_all_of_it():
    clusters = Clusters(np.array([0]), np.array([0.0]), at(0))
    assert {pick.item for pick in nearest_picks(clusters, at(0), at(1, 2, 3), 50)} == {0, 1, 2}
    assert {pick.item for pick in random_picks(50, 3, seed=0)} == {0, 1, 2}
    assert [pick.item for pick in random_picks(2, 100, seed=0)] != [pick.item for pick in random_picks(2, 100, seed=1)]


def test_clusters_are_what_resembles_and_are_named_by_what_sets_them_apart():
    pay = [f"please pay the bill number {n}" for n in range(6)]
    fly = [f"please book a flight to town {n}" for n in range(4)]
    vectors, others = latent_vectors([*fly, *pay], ["pay the bill", "a flight", "unheard of"], seed=0)
    found = cluster(vectors, 2, seed=0)
    assert found.of_item.tolist() == [1] * 4 + [0] * 6, "the largest is the first"
    assert found.nearest(others)[:2].tolist() == [0, 1]
    failures = [{"text": text, "gold": "a", "student": "b"} for text in (*fly, *pay)]
    about = described(found, failures, [*fly, *pay, *(f"please sing {n}" for n in range(10))])
    assert [(each["size"], each["share"]) for each in about] == [(6, 0.6), (4, 0.4)]
    assert set(about[0]["terms"]) <= {"pay", "the", "bill", "number"}
    assert about[1]["name"].startswith("a: ")
    assert "please" not in about[0]["terms"], "every text has it"
    assert set(about[0]["nearest"]) <= set(pay)
    assert about[0]["confusions"] == [["a", "b", 6]]


def test_fewer_failures_than_clusters_make_fewer_clusters():
    vectors, _ = latent_vectors(["pay", "pay", "fly"], [], seed=0)
    assert len(cluster(vectors, 20, seed=0).centres) == 2
