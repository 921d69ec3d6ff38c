"""Latency and throughput of real modules under load."""

from __future__ import annotations

import pytest
import torch

from potstill.evaluation.predict import ModelUnderTest
from potstill.evaluation.prior import majority
from potstill.evaluation.speed import measure_speed
from potstill.models.quantise import quantised, stored_bytes

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
    torch.testing.assert_close(signal.logits.exp(), torch.tensor([[1.0, 2.0, 3.0]] * 2) / 6)


def test_eight_bits_answer_alike_and_are_counted_as_eight_bits() -> None:
    pytest.importorskip("torchao", reason="torchao is an extra: pip install 'potstill[quantised]'")
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8)).eval()
    copied, inputs = quantised(model), torch.randn(5, 64)
    with torch.no_grad():
        torch.testing.assert_close(copied(inputs), model(inputs), atol=0.05, rtol=0.1)
    assert stored_bytes(copied) < stored_bytes(model) / 3
    assert type(model[0].weight) is torch.nn.Parameter, "the student itself is left as it is"
