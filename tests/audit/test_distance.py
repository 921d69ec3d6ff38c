"""Distance to the nearest training example, and whether errors grow with it."""

from __future__ import annotations

import numpy as np
import pytest

from potstill.audit.distance import distance_to_nearest, tfidf_vectors
from tests.audit.examples import sentences


def test_the_nearest_is_found_and_the_farthest_come_first():
    transfer = sentences(50, seed=0)
    sample = [transfer[7], transfer[3].rpartition(" ")[0], "zzz yyy"]
    result = distance_to_nearest(
        *tfidf_vectors(transfer, sample), embedding="TF-IDF", texts=sample, transfer_texts=transfer
    )
    farthest = result["farthest"]
    assert [each["item"] for each in farthest] == [2, 1, 0]
    assert [each["distance"] for each in farthest] == [1.0, pytest.approx(0.1, abs=0.1), 0.0]
    assert [each["nearest"] for each in farthest[1:]] == [transfer[3], transfer[7]]


def test_errors_that_grow_with_distance_are_seen_and_others_are_not():
    generator = np.random.default_rng(0)
    angle_N = np.linspace(0, 1, 500)
    sample_ND = np.stack([np.cos(angle_N), np.sin(angle_N)], axis=1)
    right = {
        "far": generator.random(500) > angle_N,
        "anywhere": generator.random(500) > 0.5,
        "unknown": np.where(angle_N < 0.5, np.nan, 1.0),
    }
    errors = distance_to_nearest(np.array([[1.0, 0.0]]), sample_ND, embedding="angle", right=right)["errors"]
    rates = [each["value"] for each in errors["far"]["bins"]]
    assert rates[0] < 0.2
    assert rates[-1] > 0.8
    assert errors["far"]["spearman"] > 0.4
    assert abs(errors["anywhere"]["spearman"]) < 0.15
    assert sum(each["n"] for each in errors["unknown"]["bins"]) == 250
    assert errors["unknown"]["spearman"] is None, "all right: nothing to correlate"
