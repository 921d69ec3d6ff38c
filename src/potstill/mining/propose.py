"""Which inputs of a pool to ask the teacher about next."""

# M members of a cluster, P items of a pool, D width of a vector

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from potstill.mining.clusters import Clusters

WORKING_MEMORY = 64  # MB of distances held at once


@dataclass(frozen=True)
class Pick:
    """An item of the pool and, unless it was drawn at random, the failure that it resembles."""

    item: int
    cluster: int | None = None
    failure: int | None = None
    distance: float | None = None


def quotas(sizes: Sequence[int], budget: int) -> list[int]:
    """The budget over the clusters, in proportion to their sizes; what is left goes to the largest remainders."""
    total = sum(sizes)
    exact = [budget * size / total for size in sizes]
    whole = [int(each) for each in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda place: (whole[place] - exact[place], place))
    for place in by_remainder[: budget - sum(whole)]:
        whole[place] += 1
    return whole


def nearest_picks(clusters: Clusters, failures_FD: NDArray, pool_PD: NDArray, budget: int) -> list[Pick]:
    """For each cluster its quota of the pool, the largest cluster first.

    Its members take turns: each brings its nearest item that nobody has taken, then each its second. Those nearest to
    the centre alone would be nearly the same text many times.
    """
    sizes = np.bincount(clusters.of_item).tolist()
    picks: list[Pick] = []
    for number, quota in enumerate(quotas(sizes, budget)):
        free = np.setdiff1d(np.arange(len(pool_PD)), [pick.item for pick in picks])
        members = clusters.members(number)
        picks += _of_cluster(number, members, failures_FD[members], free, pool_PD[free], quota)
    return picks


def random_picks(budget: int, num_items: int, seed: int) -> list[Pick]:
    """As many, each as likely as any other: what choosing has to be better than."""
    return [Pick(item) for item in np.random.default_rng(seed).permutation(num_items)[:budget].tolist()]


def _of_cluster(
    number: int, members: NDArray[np.int64], members_MD: NDArray, free: NDArray, free_PD: NDArray, quota: int
) -> list[Pick]:
    quota = min(quota, len(free))
    if not quota:
        return []
    index = NearestNeighbors(n_neighbors=quota, metric="cosine", algorithm="brute").fit(free_PD)
    with sklearn.config_context(working_memory=WORKING_MEMORY):
        distances_MQ, places_MQ = index.kneighbors(members_MD)
    picks: dict[int, Pick] = {}
    for turn in range(quota):
        for row in np.argsort(distances_MQ[:, turn], kind="stable").tolist():
            item, distance = int(free[places_MQ[row, turn]]), round(float(distances_MQ[row, turn]), 6)
            picks.setdefault(item, Pick(item, number, int(members[row]), distance))
            if len(picks) == quota:
                return list(picks.values())
    raise AssertionError("one member alone has as many neighbours as the quota asks for")
