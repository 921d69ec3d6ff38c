"""Latency and throughput of real modules under load."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from potstill.errors import UserError
from potstill.evaluation.cost import count_flops, num_parameters
from potstill.evaluation.predict import ModelUnderTest, predict
from potstill.evaluation.prior import majority
from potstill.evaluation.speed import measure_speed
from potstill.models.quantise import quantised, stored_bytes
from tests.models.tiny import causal_batch, tiny_model

from .echo import CAUSAL, IMAGES, answers, language_model, texts


def test_every_mix_is_measured_at_its_batch() -> None:
    model = language_model().train()
    batches = [texts([3, 4, 5], [6, 7, 8], [9, 10, 11], [3, 3, 3])]
    found = measure_speed({"student": ModelUnderTest(model)}, batches, CAUSAL, [(1, 1), (4, 2), (64, 1)])["student"]
    assert [(mix["batch"], mix["concurrency"]) for mix in found["mixes"]] == [(1, 1), (4, 2), (4, 1)]
    for mix in (found, *found["mixes"]):
        assert 0 < mix["latency_ms_p50"] <= mix["latency_ms_p95"] <= mix["latency_ms_p99"]
    assert all(mix["examples_per_s"] > 0 for mix in found["mixes"])
    assert (found["latency_device"], found["peak_bytes"], model.training) == ("cpu", None, True)


def test_the_most_frequent_label_is_given_to_everything() -> None:
    tested = majority([2, 2, 1, -100], 3, IMAGES)
    assert tested is not None
    assert majority([-100, -100], 3, IMAGES) is None
    signal = tested.source.signal(answers([0, 1], [0, 1]), IMAGES.output)  # type: ignore[union-attr]
    assert signal.logits is not None
    torch.testing.assert_close(signal.logits.exp(), torch.tensor([[1.0, 2.0, 3.0]] * 2) / 6)


def test_eight_bits_answer_alike_and_are_counted_as_eight_bits() -> None:
    pytest.importorskip("torchao", reason="torchao is an extra: pip install 'potstill[quantised]'")
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8)).eval()
    copied, inputs = quantised(model), torch.randn(5, 64)
    with torch.no_grad():
        torch.testing.assert_close(copied(inputs), model(inputs), atol=0.05, rtol=0.1)
    assert stored_bytes(copied) < stored_bytes(model) / 3
    assert type(model[0].weight) is torch.nn.Parameter, "the student itself is left as it is"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_language_model_in_eight_bits_is_smaller_also_where_it_shares_its_embedding(kind: str) -> None:
    """GPT-2's layers are none of torch's, and its head is the embedding: in 8 bits beside it, it would add to it."""
    pytest.importorskip("torchao", reason="torchao is an extra: pip install 'potstill[quantised]'")
    model = tiny_model(kind, "causal_lm", hidden_size=64, tie_word_embeddings=True)
    batch = causal_batch([[5, 6, 7, 8, 9]] * 2, [0, 0])
    copied = quantised(model)
    assert num_parameters(copied) == num_parameters(model)
    assert [count_flops(ModelUnderTest(each), [batch], CAUSAL) is None for each in (copied, model)] == [True, False]
    embeddings = sum(stored_bytes(each) for each in model.modules() if isinstance(each, torch.nn.Embedding))
    assert stored_bytes(copied) - embeddings < (stored_bytes(model) - embeddings) / 3
    given, expected = (predict(each, [batch], CAUSAL) for each in (copied, model))
    assert np.abs(given.nll - expected.nll).max() < 0.05  # type: ignore[union-attr]
    assert not np.array_equal(given.nll, expected.nll), "something is in 8 bits"  # type: ignore[union-attr]


def test_a_model_without_linear_layers_is_not_said_to_be_in_eight_bits() -> None:
    pytest.importorskip("torchao", reason="torchao is an extra: pip install 'potstill[quantised]'")
    with pytest.raises(UserError, match=r"quantised=True finds no linear layer in a Sequential"):
        quantised(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)))
