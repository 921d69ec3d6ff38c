from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score
from torch import Tensor

from potstill import retrieval
from potstill.data.batch import IGNORE
from potstill.retrieval import ValidationTexts, pair_scores, retrieve


def texts(num_examples: int, num_texts: int = 1, num_labels: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(num_examples, num_texts, 6, generator=generator, dtype=torch.float64)
    return embeddings, torch.randint(num_labels, (num_examples,), generator=generator)


def cosines(first: Tensor, second: Tensor) -> np.ndarray:
    return torch.nn.functional.cosine_similarity(first.unsqueeze(1), second.unsqueeze(0), dim=-1).numpy()


@pytest.mark.parametrize("num_examples", [6, 40])  # fewer and more than ten others
def test_ranks_are_measured_as_scikit_learn_does(num_examples: int) -> None:
    embeddings, labels = texts(num_examples, num_labels=3)
    found = retrieve(embeddings, labels)
    similarity = cosines(embeddings[:, 0], embeddings[:, 0])
    for query in range(num_examples):
        others = np.arange(num_examples) != query
        relevant, scores = (labels == labels[query]).numpy()[others], similarity[query][others]
        if not relevant.any():
            assert math.isnan(found["ndcg_at_10"][query])
            continue
        assert float(found["ndcg_at_10"][query]) == pytest.approx(ndcg_score(relevant[None], scores[None], k=10))
        recall = relevant[np.argsort(-scores)[:10]].sum() / relevant.sum()
        assert float(found["recall_at_10"][query]) == pytest.approx(recall)
        nearest = np.flatnonzero(others)[scores.argmax()]
        assert int(found["nearest"][query]) == nearest
        assert float(found["accuracy_at_1"][query]) == float(labels[nearest] == labels[query])


def test_anchors_are_looked_up_among_positives() -> None:
    embeddings, labels = texts(30, num_texts=3, num_labels=100)
    found = retrieve(embeddings, labels)
    similarity = cosines(embeddings[:, 0], embeddings[:, 1])
    wanted = [
        ndcg_score((labels == label).numpy()[None], scores[None], k=10)
        for label, scores in zip(labels, similarity, strict=True)
    ]
    np.testing.assert_allclose(found["ndcg_at_10"].numpy(), wanted, rtol=1e-6)


def test_a_query_of_which_nothing_is_relevant_is_not_measured() -> None:
    embeddings, _ = texts(4)
    found = retrieve(embeddings, torch.tensor([1, 1, 2, IGNORE]))
    for name in ("ndcg_at_10", "recall_at_10", "accuracy_at_1"):
        assert found[name].isnan().tolist() == [False, False, True, True]


def test_many_queries_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = texts(40)
    whole = retrieve(embeddings, labels)
    monkeypatch.setattr(retrieval, "QUERIES_AT_ONCE", 7)
    for name, values in retrieve(embeddings, labels).items():
        torch.testing.assert_close(values, whole[name], equal_nan=True)


@pytest.mark.parametrize("sizes", [(40,), (16, 0, 24), (1,) * 40])
def test_a_validation_is_one_corpus_however_it_was_cut(sizes: tuple[int, ...]) -> None:
    embeddings, labels = texts(40)
    metric = ValidationTexts()
    for parts in zip(embeddings.split(sizes), labels.split(sizes), strict=True):
        metric.update(*parts)
    values: Any = metric.compute()
    ndcg = float(retrieve(embeddings, labels)["ndcg_at_10"].nanmean())
    assert values["ndcg_at_10"] == pytest.approx(ndcg)
    assert values["loss"] == pytest.approx(1.0 - ndcg)


def test_scored_pairs_are_measured_by_rank_correlation() -> None:
    embeddings, _ = texts(30, num_texts=2)
    cosine = pair_scores(embeddings)
    torch.testing.assert_close(cosine, torch.cosine_similarity(embeddings[:, 0], embeddings[:, 1]))
    gold = (cosine + 0.5 * torch.randn(30, dtype=torch.float64)).float()
    metric = ValidationTexts()
    metric.update(embeddings, gold)
    assert metric.compute()["spearman"] == pytest.approx(spearmanr(cosine, gold)[0], abs=1e-6)
