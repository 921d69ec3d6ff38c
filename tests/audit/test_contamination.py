"""What of the test set was met in training: each kind found once, nothing else found, scores with and without it."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from potstill.audit.contamination import contamination, is_copy
from potstill.audit.texts import Texts, character_grams, normalise
from tests.audit.examples import clinc150, column, sentences

TEST = sentences(100, seed=0)
TRAIN = sentences(300, seed=1)


def found(test: list[str], train: list[str], **options) -> dict[int, tuple[str, int]]:
    """Of each item that was found its kind and the training example."""
    result = contamination(Texts(test), {"train": Texts(train)}, **options)
    assert result["num_dirty"] == len(result["items"])
    return {item["item"]: (item["kind"], item["other"]) for item in result["items"]}


def test_clean_data_has_no_contamination():
    result = contamination(Texts(TEST), {"train": Texts(TRAIN)}, right={"student": np.ones(100)})
    assert result["items"] == []
    assert result["dirty"]["value"] == 0
    assert result["models"]["student"]["dirty"]["value"] is None
    assert result["models"]["student"]["gained"] == 0


def test_planted_items_are_named_by_kind():
    near = TEST[7][:-1] + "x"
    inside = f"{' '.join(sentences(1, seed=5, num_words=30))} {TEST[9]} {' '.join(sentences(1, seed=6, num_words=30))}"
    train = [*TRAIN, TEST[3].upper() + "!", near, inside]
    assert found(TEST, train) == {3: ("exact", 300), 7: ("near", 301), 9: ("ngram", 302)}


def test_an_item_that_is_found_twice_counts_once_by_its_strongest_match():
    train = [TEST[3][:-1] + "x", TEST[3]]
    assert found(TEST, train) == {3: ("exact", 1)}
    split = contamination(Texts(TEST), {"train": Texts(train)})["splits"]["train"]["prompt"]
    assert (split["exact"], split["near"], split["ngram"], split["at_threshold"]) == (1, 0, 0, 1)


def test_the_threshold_moves_what_is_near():
    train = [*TRAIN, TEST[7][:20] + "xxxxx xxxxx" + TEST[7][31:]]
    assert found(TEST, train) == {}
    assert found(TEST, train, threshold=0.6) == {7: ("near", 300)}


def test_texts_too_short_for_a_run_are_counted_as_such():
    short = sentences(60, seed=3, num_words=4)
    fields = contamination(Texts(TEST[:40] + short), {"train": Texts(TRAIN)})["method"]["fields"]
    assert fields["prompt"] == {"ngram_words": 8, "eligible": 40, "looked_at": 100, "eligible_share": 0.4}


def test_short_answers_are_no_contamination_and_long_ones_are():
    test = Texts(TEST[:3], ["yes", "no", " ".join(TEST[50:52])])
    train = Texts(TRAIN[:3], ["yes", "no", " ".join(TEST[50:52])])
    [item] = contamination(test, {"train": train})["items"]
    assert (item["item"], item["field"], item["kind"]) == (2, "answer", "exact")


def test_scores_are_told_apart_by_clean_and_dirty():
    right = np.array([1.0] * 10 + [0.0] * 10 + [np.nan] * 80)
    result = contamination(Texts(TEST), {"train": Texts(TRAIN + TEST[5:15])}, right={"student": right})
    scores = result["models"]["student"]
    assert [scores[part]["n"] for part in ("all", "clean", "dirty")] == [20, 10, 10]
    assert [scores[part]["value"] for part in ("all", "clean", "dirty")] == [0.5, 0.5, 0.5]
    right[5:15] = 1
    scores = contamination(Texts(TEST), {"train": Texts(TRAIN + TEST[5:15])}, right={"student": right})["models"]
    assert scores["student"]["gained"] == pytest.approx(15 / 20 - 5 / 10)


def test_scores_of_another_number_of_items_are_refused():
    with pytest.raises(ValueError, match="99 values for 100 test items"):
        contamination(Texts(TEST), {"train": Texts(TRAIN)}, right={"student": np.ones(99)})


def test_the_same_texts_give_the_same_report():
    first, second = (json.dumps(contamination(Texts(TEST), {"train": Texts(TRAIN + TEST[:5])})) for _ in range(2))
    assert first == second


def test_the_repair_takes_what_the_audit_names_and_nothing_else():
    near = TEST[7][:-1] + "x"
    train = Texts([*TRAIN[:5], TEST[3], near, TEST[3]])
    assert np.flatnonzero(is_copy(Texts(TEST), train, "exact")).tolist() == [5, 7]
    assert np.flatnonzero(is_copy(Texts(TEST), train, "near")).tolist() == [5, 6, 7]


def test_200_test_items_put_into_train_are_named():
    rng = np.random.default_rng(0)
    test, train = sentences(1000, seed=0), sentences(2000, seed=1)
    planted = sorted(rng.choice(1000, 200, replace=False).tolist())
    assert sorted(found(test, train + [test[number] for number in planted])) == planted


def similar(first: list[str], second: list[str]) -> set[int]:
    """Those of `first` that are similar to any of `second`: each compared with each, by sparse products."""
    options: Any = {"analyzer": character_grams, "binary": True}
    grams: Any = CountVectorizer(**options).fit([*first, *second])
    one, other = (grams.transform(texts).astype(np.float32) for texts in (first, second))
    sizes, other_sizes = (np.asarray(each.sum(axis=1)).ravel() for each in (one, other))
    found = set()
    for start in range(0, len(first), 500):
        shared_grams = (one[start : start + 500] @ other.T).toarray()
        together = sizes[start : start + 500, None] + other_sizes - shared_grams
        found |= {int(start + row) for row in np.flatnonzero((shared_grams >= 0.8 * together).any(axis=1))}
    return found


@pytest.mark.slow
def test_clinc150_as_shipped(shared):
    """19 exact, 119 at the threshold; comparing each with each finds the same 119."""
    texts = {split: Texts(column(clinc150(shared, split), "text")) for split in ("train", "validation", "test")}
    start = time.perf_counter()
    result = contamination(texts["test"], {split: texts[split] for split in ("train", "validation")})
    assert time.perf_counter() - start < 60
    train = result["splits"]["train"]["prompt"]
    assert (train["exact"], train["at_threshold"]) == (19, 119)
    every = similar(*([normalise(text) for text in texts[split].prompt] for split in ("test", "train")))
    assert len(every) == 119
    in_train = [item for item in result["items"] if item["split"] == "train" and item["kind"] != "ngram"]
    assert {item["item"] for item in in_train} <= every
    assert result["method"]["fields"]["prompt"]["eligible_share"] == pytest.approx(0.574)
    assert result["num_dirty"] == 187
