"""How fast models answer on this machine, one request at a time and under load."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle, islice
from queue import SimpleQueue
from typing import Any

import torch

from potstill.data.batch import Batch
from potstill.data.microbatch import cut
from potstill.evaluation.cost import latency_ms, percentiles, single_examples
from potstill.evaluation.predict import ModelUnderTest, answer, inference
from potstill.models.task import Task

MIXES = ((1, 1), (1, 4), (8, 1), (8, 4), (32, 1))  # (examples of a request, requests under way)
NUM_CALLS = 20


def measure_speed(
    models: Mapping[str, ModelUnderTest],
    batches: Sequence[Batch],
    task: Task,
    mixes: Sequence[tuple[int, int]] = MIXES,
) -> dict[str, dict[str, Any]]:
    """Per model latency at batch 1, what it took of an accelerator's memory, and latency and throughput of each mix.

    batches: of the test set; requests are made of the examples of the first.
    """
    examples = single_examples(batches)
    return {name: _speed(tested, examples, batches, task, mixes) for name, tested in models.items() if examples}


def _speed(
    tested: ModelUnderTest,
    examples: Sequence[Batch],
    batches: Sequence[Batch],
    task: Task,
    mixes: Sequence[tuple[int, int]],
) -> dict[str, Any]:
    device = next(tested.model.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    alone = latency_ms(tested.model, examples, task, source=tested.source)
    under_load = [_mix(tested, batches, task, size, concurrency) for size, concurrency in mixes]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {**alone, "latency_device": str(device), "peak_bytes": peak, "mixes": under_load}


def _mix(
    tested: ModelUnderTest, batches: Sequence[Batch], task: Task, size: int, concurrency: int
) -> dict[str, float | int]:
    """`concurrency` threads that each send the next request when theirs was answered."""
    device = next(tested.model.parameters()).device
    requests = [piece.to(device) for batch in batches[:1] for piece in cut(batch, size, None) if len(piece) == size]
    requests = requests or [batches[0].to(device)]  # a test set of fewer examples
    sent = list(islice(cycle(requests), NUM_CALLS))

    replicas: SimpleQueue[ModelUnderTest] = SimpleQueue()
    for _ in range(concurrency):
        replicas.put(_replica(tested))

    def timed(request: Batch) -> float:
        start = time.perf_counter()
        replica = replicas.get()
        with inference(replica.model):  # gradients are switched off per thread
            answer(replica.model, request, task, replica.source).cpu()  # waits for an accelerator
        replicas.put(replica)
        return (time.perf_counter() - start) * 1000

    with ThreadPoolExecutor(concurrency) as threads:
        timed(sent[0])
        start = time.perf_counter()
        times_ms = list(threads.map(timed, sent))
        seconds = time.perf_counter() - start
    num_examples = sum(map(len, sent))
    load: dict[str, float | int] = {"batch": len(sent[0]), "concurrency": concurrency}
    return {**load, **percentiles(times_ms), "examples_per_s": num_examples / seconds}


def _replica(tested: ModelUnderTest) -> ModelUnderTest:
    """Modules of its own on the same weights: hooks, by which a forward pass picks its rows, are of one call."""
    tensors = chain(tested.model.parameters(), tested.model.buffers())
    return copy.deepcopy(tested, {id(tensor): tensor for tensor in tensors})
