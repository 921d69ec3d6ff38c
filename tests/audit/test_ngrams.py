"""Runs of words: n by the length of the texts, and texts that are too short for it said to be so."""

from __future__ import annotations

import math

import numpy as np
import pytest

from potstill.audit.ngrams import adapted_n, overlap


@pytest.mark.parametrize(("lengths", "n"), [([], 8), ([3] * 100, 8), ([10] * 100, 10), ([500] * 100, 13)])
def test_n_follows_the_texts_within_its_bounds(lengths, n):
    assert adapted_n(lengths) == n


def test_n_is_for_the_short_texts_not_for_the_middle():
    assert adapted_n([9] * 10 + [40] * 90) == 9


def test_a_word_counts_where_any_run_around_it_is_shared():
    found = overlap(["a b c d e f", "a b", "x y z"], ["q a b c d q", "z y x"], n=3)
    np.testing.assert_allclose(found.share, [4 / 6, math.nan, 0.0])
    assert found.partner.tolist() == [0, -1, -1]


def test_no_texts_have_no_overlap():
    assert overlap([], ["a b c"], n=2).share.shape == (0,)
