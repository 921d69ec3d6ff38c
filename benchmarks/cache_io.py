"""How large a stored token is, and how many of them one core reads a second.

    OMP_NUM_THREADS=1 python -m benchmarks.cache_io --suite cpu --out benchmarks/results/cache_io.json

Tokens of random classes, in examples of 512, are written as `potstill cache` writes them and read back as training
does: mapped into memory, checked against their checksums, unpacked, and put together in batches of 8 examples in a
random order. The files are in the page cache by then: this is what the processor does, not the disk. Bytes a token are
those of the token, as the manifest says them; in the file, with the index of examples as well.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Figure, Report, command, median
from potstill.losses.sparse import sparse_forward_kl
from potstill.signals.codecs import Codec, Exact, Layout, Sampled, Stored, TopK
from potstill.signals.store import Store

TOKENS, DIFFERENT, BATCH, WIDTH = 512, 32, 8, 768  # of an example; different ones; examples at once; of a state
EXAMPLES = {"smoke": 16, "cpu": 128, "gpu": 128}
ROUNDS = {"smoke": 3, "cpu": 9, "gpu": 9}
SPREAD = 4.0  # deviation of the random logits: what the 64 most probable of 150,000 are is of no matter here


@dataclass
class Case:
    """codec: how tokens of `num_classes` classes, or hidden states, are stored."""

    codec: Codec
    num_classes: int


CASES = {
    "top_64_of_151936": Case(TopK(64), 151_936),
    "top_64_of_128256": Case(TopK(64), 128_256),
    "top_64_uint8_of_151936": Case(TopK(64, values="uint8"), 151_936),
    "sampled_12_of_151936": Case(Sampled(12), 151_936),
    "hidden_768_bfloat16": Case(Exact("bfloat16"), WIDTH),
}


def measure(suite: str) -> Report:
    report = Report()
    torch.set_num_threads(1)
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            store, layout = written(case, Path(folder), EXAMPLES[suite])
            report.figures[f"{name}/bytes_per_token"] = Figure(case.codec.bytes_per_row(layout))
            in_file = store.num_bytes / (EXAMPLES[suite] * TOKENS)
            report.figures[f"{name}/bytes_per_token_in_the_file"] = Figure(in_file)
            rates = [read(case.codec, store, layout, EXAMPLES[suite], seed) for seed in range(ROUNDS[suite] + 1)][1:]
            report.figures[f"{name}/million_tokens_per_second"] = median([rate["cpu"] for rate in rates])
            report.rounds[name] = rates
    report.figures |= lost()
    return report


def written(case: Case, folder: Path, num_examples: int) -> tuple[Store, Layout]:
    """A store of so many examples, all of them alike."""
    rows = SPREAD * torch.randn(DIFFERENT, case.num_classes, generator=torch.Generator().manual_seed(0))
    rows = rows.repeat(TOKENS // DIFFERENT, 1)
    layout = case.codec.layout(rows)
    [encoded] = case.codec.encode(rows, [TOKENS], [0])
    store = Store(folder, {"cache": "benchmark"})
    store.layout = {"logits": layout}
    for number in range(num_examples):
        store.add(str(number), encoded.data, {})
    store.flush()
    return Store(folder, {"cache": "benchmark"}), layout


def read(codec: Codec, store: Store, layout: Layout, num_examples: int, seed: int) -> dict[str, float]:
    """Million tokens a second of CPU time and of wall time, every example once."""
    order = np.random.default_rng(seed).permutation(num_examples)
    began_at, cpu_began_at = time.perf_counter(), time.process_time()
    for start in range(0, num_examples, BATCH):
        stored = [_stored(store, number) for number in order[start : start + BATCH]]
        codec.decode(stored, layout)
    seconds, cpu_seconds = time.perf_counter() - began_at, time.process_time() - cpu_began_at
    tokens = num_examples * TOKENS / 1e6
    return {"cpu": tokens / cpu_seconds, "wall": tokens / seconds}


def _stored(store: Store, number: int) -> Stored:
    record = store.read(str(number))
    assert record is not None
    return Stored(record, TOKENS)


def lost() -> dict[str, Figure]:
    """How far packing moves forward KL at temperature 1, tail, of a student beside its teacher: relative error."""
    generator = torch.Generator().manual_seed(0)
    teacher = SPREAD * torch.randn(256, 32_768, generator=generator)
    student = teacher + torch.randn(teacher.shape, generator=generator)
    log_p, ids = teacher.log_softmax(dim=-1).topk(64, dim=-1)
    exact = sparse_forward_kl(student, log_p, ids).values.mean()
    found = {}
    for values in ("float16", "uint8"):
        codec = TopK(64, values=values)
        stored = [Stored(codec.encode(teacher, [256], [0])[0].data, 256)]
        sparse = codec.decode(stored, codec.layout(teacher))
        packed = sparse_forward_kl(student, sparse.log_p.float(), sparse.ids.long()).values.mean()  # type: ignore[union-attr]
        found[f"top_64_{values}/relative_error_of_kl"] = Figure(float((packed / exact - 1.0).abs()))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    command("cache_io", measure, __doc__, arguments)


if __name__ == "__main__":
    main()
