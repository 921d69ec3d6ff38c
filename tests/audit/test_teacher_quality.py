"""A teacher's errors: the slice they gather in is named, contradictions are listed, doubtful rows come first."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from potstill.audit.teacher_quality import conflicts, teacher_quality

CLASSES = ["eel", "cat", "dog", "owl"]
DOMAINS = ["bank", "travel", "home", "work", "food"]


def planted(num: int = 3000, share: float = 0.1, seed: int = 0):
    """Texts, gold, a teacher that errs on 1 % and, in `bank`, on `share` more; its probabilities; slices."""
    generator = np.random.default_rng(seed)
    gold = generator.integers(0, 4, num)
    domain = np.array(DOMAINS)[generator.integers(0, 5, num)]
    wrong = generator.random(num) < np.where(domain == "bank", 0.01 + share, 0.01)
    teacher = np.where(wrong, (gold + 1) % 4, gold)
    probabilities = np.full((num, 4), 0.02)
    probabilities[np.arange(num), teacher] = 0.94
    texts = [f"text {number}" for number in range(num)]
    names = np.array(CLASSES)
    return texts, names[gold].tolist(), names[teacher].tolist(), probabilities, {"domain": domain.tolist()}, wrong


def test_a_tenth_of_flipped_labels_in_one_slice_is_named():
    texts, gold, teacher, probabilities, slices, _ = planted()
    result = teacher_quality(texts, gold, teacher, slices, probabilities=probabilities, classes=CLASSES)
    assert result["named"] == ["domain=bank"]
    assert result["slices"][0]["slice"] == "domain=bank"
    assert result["slices"][0]["value"] == pytest.approx(0.11, abs=0.03)


def test_a_teacher_that_errs_alike_everywhere_names_no_slice():
    named = 0
    for seed in range(20):
        texts, gold, teacher, _, slices, _ = planted(num=1000, share=0.0, seed=seed)
        named += bool(teacher_quality(texts, gold, teacher, slices)["named"])
    assert named <= 3  # 1 expected


@pytest.mark.parametrize("installed", [True, False])
def test_the_rows_to_look_at_are_the_wrong_ones_the_most_doubtful_first(installed, monkeypatch):
    if installed:
        pytest.importorskip("cleanlab")
    else:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    texts, gold, teacher, probabilities, slices, wrong = planted(num=500)
    first = np.flatnonzero(wrong)[3]
    probabilities[first] *= [0.5 if name == gold[first] else 1.0 for name in CLASSES]
    result = teacher_quality(texts, gold, teacher, slices, probabilities=probabilities, classes=CLASSES)
    assert ("cleanlab: " in result["review_method"]) == installed
    assert ("pip install" in result["review_method"]) != installed
    assert {row["item"] for row in result["review"]} == set(np.flatnonzero(wrong).tolist())
    assert result["review"][0]["item"] == first
    assert result["review"][0] == {
        "item": first,
        "text": texts[first],
        "gold": gold[first],
        "teacher": teacher[first],
        "confidence_in_gold": pytest.approx(0.01),
        "domain": slices["domain"][first],
    }


def test_without_probabilities_the_disagreements_are_listed():
    texts, gold, teacher, _, slices, wrong = planted(num=200)
    result = teacher_quality(texts, gold, teacher, slices, max_review=2)
    assert result["num_review"] == wrong.sum() > 2
    assert [row["item"] for row in result["review"]] == np.flatnonzero(wrong)[:2].tolist()


def test_items_without_a_label_are_left_out():
    result = teacher_quality(["a", "b", "c"], ["eel", None, "cat"], ["eel", "cat", None], {"domain": ["x", "x", "y"]})
    assert result["overall"]["n"] == 1
    assert [each["slice"] for each in result["slices"]] == ["domain=x"]
    assert teacher_quality(["a"], [None], ["cat"], {"domain": ["x"]})["overall"]["value"] is None


def test_classes_that_do_not_occur_do_not_stop_the_ranking():
    gold, teacher = ["eel"] * 20 + ["owl"] * 20, ["eel"] * 19 + ["owl"] * 21
    probabilities = np.full((40, 4), 0.01)
    probabilities[np.arange(40), [CLASSES.index(name) for name in teacher]] = 0.97
    texts = [str(number) for number in range(40)]
    result = teacher_quality(texts, gold, teacher, {}, probabilities=probabilities, classes=CLASSES)
    assert [row["item"] for row in result["review"]] == [19]
    only = teacher_quality(texts[:20], gold[:20], teacher[:20], {}, probabilities=probabilities[:20], classes=CLASSES)
    assert [row["item"] for row in only["review"]] == [19]


def test_one_text_under_two_labels_is_a_conflict():
    texts = ["Pay my rent", "pay my rent!", "pay my rent", "stop", "stop", "go"]
    found = conflicts(texts, ["eel", "cat", "eel", "owl", "owl", None])
    assert found == [{"text": "Pay my rent", "labels": {"cat": 1, "eel": 2}, "items": [0, 1, 2]}]
