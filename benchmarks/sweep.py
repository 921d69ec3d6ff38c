"""What eight runs of three epochs cost where their teacher is cached, of what they cost where it runs every time.

    OMP_NUM_THREADS=1 python -m benchmarks.sweep --suite cpu --out benchmarks/results/sweep.json

Teacher: BERT of 12 layers, for classification; student: the same of 3 layers and of its width, as in a sweep over
seeds. Random weights and texts, kd, AdamW, float32. The cache is empty at first and filled on the way by the first
run; every run opens it anew, hash of the teacher's weights included, as jobs of a sweep do. A run without the cache
and one with it take turns; the figure is the CPU time of all eight with it over that of all eight without, once a
round. Starting a process, reading data and loading models, which both do, are left out, and so is validation.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.measure import Report, command, median
from benchmarks.step_cost import step_of
from potstill.data.batch import Batch
from potstill.losses.terms import ForwardKL
from potstill.models.task import TASKS
from potstill.module import DistillationModule
from potstill.objective import Objective
from potstill.optimisation import schedule_of
from potstill.signals.cache import open_cache
from potstill.signals.cached import CachedTeacher
from potstill.signals.codecs import Exact
from potstill.signals.identity import identity_of
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, SignalSource

RUNS, EPOCHS = 8, 3
TASK, NEEDS = TASKS["text_classification"], Needs(logits=True)


@dataclass(frozen=True)
class Size:
    width: int
    num_examples: int
    length: int
    rounds: int


SIZES = {"smoke": Size(32, 16, 8, 2), "cpu": Size(192, 64, 32, 3), "gpu": Size(768, 2048, 128, 3)}
BATCH, LABELS, VOCABULARY = 16, 20, 2000


def measure(suite: str) -> Report:
    size, report = SIZES[suite], Report()
    device = torch.device("cuda" if suite == "gpu" else "cpu")
    live = LiveTeacher(bert(12, size.width), TASK, None).to(device)
    batches = [batch.to(device) for batch in texts(size)]
    ratios = []
    for number in range(size.rounds):
        with tempfile.TemporaryDirectory() as folder:
            seconds = one_round(live, batches, Path(folder), size, device)
        report.rounds[str(number)] = seconds
        ratios.append(sum(seconds["cached"]) / sum(seconds["live"]))
    report.figures["cached_over_live"] = median(ratios)
    return report


def one_round(
    live: LiveTeacher, batches: list[Batch], folder: Path, size: Size, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every run: of CPU time where there is no accelerator."""
    seconds: dict[str, list[float]] = {"live": [], "cached": []}
    for run in range(RUNS):
        for way in ("live", "cached") if run % 2 else ("cached", "live"):
            clock = time.perf_counter if device.type == "cuda" else time.process_time
            began_at = clock()
            teacher = cached(live, folder) if way == "cached" else live
            train(teacher, batches, size, device, seed=run)
            if isinstance(teacher, CachedTeacher):
                teacher.flush()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[way].append(clock() - began_at)
    return seconds


def cached(live: LiveTeacher, folder: Path) -> CachedTeacher:
    codecs = {"logits": Exact()}
    teacher = CachedTeacher(live, NEEDS, open_cache(folder, identity_of(live, None, None, codecs), codecs, write=True))
    teacher.begin_writing(must_write=True)
    return teacher


def train(teacher: SignalSource, batches: list[Batch], size: Size, device: torch.device, seed: int) -> None:
    torch.manual_seed(seed)
    module = DistillationModule(
        bert(3, size.width).to(device),  # type: ignore[arg-type]
        Objective({"kd": ForwardKL(temperature=2.0)}),
        TASK,
        teacher,
        make_optimizer=functools.partial(torch.optim.AdamW, lr=1.0e-3),
        make_schedule=functools.partial(schedule_of, name="constant", warmup_fraction=0.0, num_steps=1),
        weight_decay=0.01,
        clip_norm=None,
    )
    step = step_of(module)
    for _ in range(EPOCHS):
        for number in torch.randperm(len(batches)).tolist():
            step(batches[number])


def bert(num_layers: int, width: int) -> BertForSequenceClassification:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 16}
    return BertForSequenceClassification(
        BertConfig(vocab_size=VOCABULARY, num_hidden_layers=num_layers, num_labels=LABELS, **sizes)
    )


def texts(size: Size) -> list[Batch]:
    ids = torch.randint(VOCABULARY, (size.num_examples, size.length), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(size.num_examples) % LABELS
    whole = Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels, tuple(map(str, ids.tolist())))
    return [whole.take(range(start, start + BATCH)) for start in range(0, size.num_examples, BATCH)]


def main(arguments: Sequence[str] | None = None) -> None:
    command("sweep", measure, __doc__, arguments)


if __name__ == "__main__":
    main()
