"""One pass over an evaluation set: which rows, in which order, in which mode."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from potstill.data.batch import IGNORE
from potstill.evaluation.predict import predict
from potstill.evaluation.scores import Scores

from .echo import CAUSAL, IMAGES, Echo, answers, language_model, texts


def scored(*arguments: Any, **options: Any) -> Scores:
    found = predict(*arguments, **options)
    assert isinstance(found, Scores)
    return found


def test_language_model_rows_are_the_scored_tokens_of_each_text_given_those_before() -> None:
    model, first, second = language_model(), [3, 4, 5, 6, 7], [8, 9, 10]
    found = scored(model, [texts(first, second, prompt=2), texts([11, 12, 13, 14], prompt=2)], CAUSAL)
    assert found.label.tolist() == [5, 6, 7, 10, 13, 14]
    assert found.example.tolist() == [0, 0, 0, 1, 2, 2]
    assert found.num_examples == 3
    logits = model(torch.tensor([first])).logits[0].double()
    expected = -torch.log_softmax(logits, dim=-1)[[1, 2, 3], [5, 6, 7]]
    np.testing.assert_allclose(found.nll[:3], expected.detach(), rtol=1e-5)
    assert found.top1[:3].tolist() == logits[1:4].argmax(-1).tolist()


def test_how_examples_are_batched_changes_no_score() -> None:
    model, all_ids = language_model(), [[3, 4, 5, 6, 7], [8, 9], [10, 11, 12]]
    together = scored(model, [texts(*all_ids)], CAUSAL)
    alone = scored(model, [texts(ids) for ids in all_ids], CAUSAL)
    np.testing.assert_allclose(together.nll, alone.nll, rtol=1e-5)
    assert together.example.tolist() == alone.example.tolist()
    assert together.top1.tolist() == alone.top1.tolist()


def test_examples_are_numbered_across_batches() -> None:
    found = scored(Echo(), [answers([0, 1], [0, 0]), answers([2], [2])], IMAGES)
    assert found.example.tolist() == [0, 1, 2]
    assert found.top1.tolist() == [0, 1, 2]


def test_columns_of_a_model_with_another_label_order_are_put_in_the_order_of_the_data() -> None:
    batch = answers([0, 1, 2], [0, 1, 2])
    assert scored(Echo(rotation=1), [batch], IMAGES).top1.tolist() == [1, 2, 0]
    ordered = scored(Echo(rotation=1), [batch], IMAGES, label_order=[1, 2, 0])
    assert ordered.top1.tolist() == [0, 1, 2]
    np.testing.assert_allclose(ordered.nll, scored(Echo(), [batch], IMAGES).nll)


def test_an_unlabelled_example_has_an_answer_and_no_likelihood() -> None:
    found = scored(Echo(), [answers([0, 1], [IGNORE, 1])], IMAGES)
    assert found.top1.tolist() == [0, 1]
    assert np.isnan(found.nll).tolist() == [True, False]
    assert found.labelled.tolist() == [False, True]


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_the_mode_is_put_back(training: bool) -> None:
    model = Echo(dropout=0.9).train(training)
    found = scored(model, [answers([0, 1, 2] * 20, [0, 1, 2] * 20)], IMAGES)
    assert found.top1.tolist() == [0, 1, 2] * 20
    assert model.training is training


def test_the_mode_is_put_back_when_a_batch_fails() -> None:
    model = Echo().train()
    with pytest.raises(IndexError):
        scored(model, [answers([0], [99])], IMAGES)
    assert model.training


def test_half_precision_logits_lose_nothing_more_in_the_likelihood() -> None:
    batch = answers([0, 1, 2], [0, 1, 1])
    half = scored(Echo().to(torch.bfloat16), [batch], IMAGES)
    np.testing.assert_allclose(half.nll, scored(Echo(), [batch], IMAGES).nll, rtol=1e-6)


def test_no_batches_give_no_rows() -> None:
    found = scored(Echo(), [], IMAGES)
    assert (len(found.label), found.num_examples) == (0, 0)
