"""What a model costs to keep and to run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle, islice

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from potstill.data.batch import Batch
from potstill.data.microbatch import cut
from potstill.evaluation.predict import ModelUnderTest, answer, inference
from potstill.models.quantise import is_quantised, stored_bytes
from potstill.models.task import Task
from potstill.signals.protocol import SignalSource

PERCENTILES = (50, 95, 99)


def num_parameters(model: nn.Module) -> int:
    """Parameters, those that are tied (an embedding used as head) counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers in the dtype they are held in, tied ones counted once."""
    return stored_bytes(model)


def latencies_ms(calls: Sequence[Callable[[], object]], device: torch.device, num_warmup: int) -> list[float]:
    """Wall-clock milliseconds of each call, after `num_warmup` untimed ones.

    An accelerator is waited for before the clock starts and before it stops: its calls return before the work is done.
    """
    for call in islice(cycle(calls), num_warmup):
        call()
    return [_timed_ms(call, device) for call in calls]


def _timed_ms(call: Callable[[], object], device: torch.device) -> float:
    _wait_for(device)
    start = time.perf_counter()
    call()
    _wait_for(device)
    return (time.perf_counter() - start) * 1000


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def single_examples(batches: Iterable[Batch], num_examples: int = 16) -> list[Batch]:
    """Examples of the first batch, each alone and without padding: texts differ in length, and p95 should show it."""
    first = next(iter(batches), None)
    return [] if first is None else cut(first, max_examples=1, max_tokens=None)[:num_examples]


def latency_ms(
    model: nn.Module,
    examples: Sequence[Batch],
    task: Task,
    *,
    source: SignalSource | None = None,
    num_calls: int = 50,
    num_warmup: int = 5,
) -> dict[str, float]:
    """`latency_ms_p50`, `_p95` and `_p99` of one forward pass at batch 1 on the model's device.

    examples: batches of one example, taken in turn. source: what answers in the place of a model that is several.
    """
    device = next(model.parameters()).device
    inputs = [example.to(device) for example in examples]
    calls = [lambda one=one: answer(model, one, task, source) for one in inputs]
    with inference(model):
        times_ms = latencies_ms(list(islice(cycle(calls), num_calls)), device, num_warmup)
    return percentiles(times_ms)


def percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    return {f"latency_ms_p{percent}": float(np.percentile(times_ms, percent)) for percent in PERCENTILES}


def count_flops(tested: ModelUnderTest, examples: Sequence[Batch], task: Task) -> int | None:
    """Floating-point operations of the forward pass of one example, by torch's counter; None where it counts none.

    Matrix products, convolutions and attention: what torch has formulas for, a product and its sum as two. Products of
    a model in 8 bits it passes over, so that nothing is said of such a model.
    """
    if not examples or is_quantised(tested.model):
        return None
    device = next(tested.model.parameters()).device
    with inference(tested.model), FlopCounterMode(display=False) as counter:
        answer(tested.model, examples[0].to(device), task, tested.source)
    return counter.get_total_flops() or None
