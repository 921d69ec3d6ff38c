from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from potstill.data.batch import IGNORE, Batch
from potstill.evaluation.evaluate import EvaluationSet, ModelUnderTest, evaluate
from potstill.evaluation.ranking import numbers
from potstill.evaluation.texts import TextScores, measure_texts, spearman, spearman_difference
from potstill.models.task import TASKS
from tests.models.tiny import embedding_batch, tiny_model

TEXTS = [[5 + row, 6 + row % 3, 7] for row in range(12)]


def batches(labels: list[float], *, num_texts: int) -> list[Batch]:
    whole = embedding_batch(TEXTS, labels)  # type: ignore[arg-type]
    inputs = {name: value[:, :num_texts] for name, value in whole.inputs.items()}
    batch = Batch(inputs, torch.tensor(labels), whole.keys)
    return [batch.take(range(8)), batch.take(range(8, 12))]


def evaluated(labels: list[float], *, num_texts: int) -> dict:
    models = {
        name: ModelUnderTest(tiny_model("bert", "embedding", seed=seed, initializer_range=0.5))
        for seed, name in enumerate(("teacher", "student", "baseline"))
    }
    slices = {"half": ["first"] * 6 + ["second"] * 6}
    data = EvaluationSet(batches(labels, num_texts=num_texts), "a1b2", slices)
    return evaluate(models, data, TASKS["embedding"])


def test_a_slice_chooses_queries_and_leaves_the_corpus_whole() -> None:
    labels = [float(n % 3) for n in range(12)]
    evaluation = evaluated([int(label) for label in labels], num_texts=1)
    student = evaluation["models"]["student"]
    halves = student["slices"].values()
    assert [half["n"] for half in halves] == [6, 6]
    for metric in ("ndcg_at_10", "recall_at_10", "accuracy_at_1", "agreement"):
        of_halves = [numbers(half)[metric] for half in halves]
        assert numbers(student["overall"])[metric] == pytest.approx(np.mean(of_halves))
    assert evaluation["models"]["teacher"]["overall"]["against_teacher"] is None
    assert evaluation["differences"]["student-baseline"]["n"] == 12


def test_queries_without_anything_relevant_are_counted_and_not_measured() -> None:
    evaluation = evaluated([0, 0, 0, 0, 1, IGNORE, *range(10, 16)], num_texts=1)
    overall = evaluation["models"]["student"]["overall"]
    assert (overall["n"], overall["num_labelled"]) == (12, 4)
    assert evaluation["models"]["student"]["slices"]["half=second"]["ndcg_at_10"] is None
    assert evaluation["differences"]["student-baseline"]["n"] == 4


def test_scored_pairs_have_a_correlation_and_no_agreement() -> None:
    evaluation = evaluated([n * n / 7 for n in range(12)], num_texts=2)
    assert evaluation["metric"] == "spearman"
    overall = evaluation["models"]["student"]["overall"]
    assert set(numbers(overall)) == {"spearman", "retention"}
    assert -1.0 <= overall["spearman"] <= 1.0


def test_the_correlation_is_scipys_and_nan_where_there_is_none() -> None:
    generator = np.random.default_rng(0)
    first, second, gold = generator.normal(size=(3, 5, 40)).round(1)  # ties
    for axis_rows in range(5):
        wanted = [float(spearmanr(each[axis_rows], gold[axis_rows])[0]) for each in (first, second)]  # type: ignore[arg-type]
        assert spearman(first[axis_rows], gold[axis_rows]) == pytest.approx(wanted[0])
        found = spearman_difference(first[axis_rows], second[axis_rows], gold[axis_rows])
        assert found == pytest.approx(wanted[0] - wanted[1])
        assert spearman_difference(first, second, gold)[axis_rows] == pytest.approx(found)
    assert math.isnan(spearman(np.ones(5), np.arange(5.0)))
    assert math.isnan(spearman(np.empty(0), np.empty(0)))


def test_an_empty_set_is_measured_as_nothing() -> None:
    evaluation = evaluate({}, EvaluationSet([], "a1b2"), TASKS["embedding"])
    assert (evaluation["metric"], evaluation["data"]["n"]) == ("ndcg_at_10", 0)
    names = ("ndcg_at_10", "recall_at_10", "accuracy_at_1", "nearest")
    empty = TextScores(dict.fromkeys(names, np.empty(0)), np.empty(0), np.empty(0, np.int64), 0)
    assert math.isnan(measure_texts(empty)["recall_at_10"])
