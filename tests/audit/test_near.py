"""Near-duplicates: none below the threshold, none missed, no candidate taken at its word."""

from __future__ import annotations

import pytest

from potstill.audit.near import Pair, bands_for, similar_pairs
from potstill.audit.texts import character_grams, jaccard, normalise
from tests.audit.examples import sentences


def with_typos(text: str, num: int) -> str:
    for at in range(num):
        text = text[: 7 * at + 3] + "x" + text[7 * at + 4 :]
    return text


def test_the_pairs_are_those_of_comparing_each_with_each():
    first = sentences(60, seed=0)
    second = [with_typos(text, number % 6) for number, text in enumerate(first)] + sentences(100, seed=1)
    grams = [[character_grams(text) for text in texts] for texts in (first, second)]
    every = {(i, j): jaccard(one, other) for i, one in enumerate(grams[0]) for j, other in enumerate(grams[1])}
    for threshold in (0.5, 0.8):
        expected = {pair for pair, similarity in every.items() if similarity >= threshold}
        found = list(similar_pairs(first, second, threshold))
        assert {(pair.first, pair.second) for pair in found} == expected
        assert 10 < len(expected) < 61
        assert all(pair.jaccard == every[pair.first, pair.second] for pair in found)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_a_pair_at_the_threshold_is_hardly_ever_missed(threshold):
    num_bands, num_rows = bands_for(threshold)
    assert num_bands * num_rows <= 128
    assert (1 - threshold**num_rows) ** num_bands <= 1e-3


def test_texts_without_a_word_match_nothing():
    assert list(similar_pairs(["", "a b"], ["", "a b"], 0.8)) == [Pair(1, 1, 1.0)]


def test_punctuation_case_and_width_do_not_make_another_text():
    assert normalise("  What's  THE time?! ") == normalise("what s the\ttime") == "what s the time"
    assert normalise("\uff21\uff22\uff23 stra\u00dfe") == "abc strasse"
