"""Size and latency, measured on real modules and real clocks."""

from __future__ import annotations

import time

import torch

from potstill.evaluation.cost import latencies_ms, latency_ms, model_bytes, num_parameters

from .echo import CAUSAL, language_model, texts

CPU = torch.device("cpu")


def test_a_head_tied_to_the_embedding_is_counted_once() -> None:
    model = language_model()
    assert model.lm_head.weight is model.transformer.wte.weight
    distinct = {id(tensor): tensor.numel() for tensor in model.state_dict(keep_vars=True).values()}
    assert num_parameters(model) == sum(distinct.values())


def test_model_bytes_follow_the_dtype() -> None:
    model = language_model()
    assert model_bytes(model) == 4 * num_parameters(model)
    assert model_bytes(model.bfloat16()) == 2 * num_parameters(model)


def test_latency_is_in_milliseconds() -> None:
    (latency_ms,) = latencies_ms([lambda: time.sleep(0.02)], CPU, num_warmup=0)
    assert 20 <= latency_ms < 1000


def test_warm_up_calls_are_made_and_not_timed() -> None:
    calls = []
    assert len(latencies_ms([lambda: calls.append(0)] * 4, CPU, num_warmup=3)) == 4
    assert len(calls) == 7


def test_latency_is_of_a_model_in_eval_mode_which_is_put_back() -> None:
    model = language_model().train()
    speed = latency_ms(model, [texts([3, 4, 5]), texts([6, 7, 8, 9])], CAUSAL)
    assert 0 < speed["latency_ms_p50"] <= speed["latency_ms_p95"] <= speed["latency_ms_p99"]
    assert model.training
