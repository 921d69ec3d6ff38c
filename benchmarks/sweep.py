"""What eight runs of three epochs cost where their teacher is cached, of what they cost where it runs every time.

    OMP_NUM_THREADS=1 python -m benchmarks.sweep --suite cpu --out benchmarks/results/sweep.json

Teacher: BERT of 12 layers, for classification; student: the same of 3 layers and of its width, as in a sweep over
seeds. Random weights, texts of the lengths that `benchmarks.padding` calls lognormal, kd, AdamW, float32. The cache is
empty at first and filled on the way by the first run; every run opens it anew, hash of the teacher's weights included,
as jobs of a sweep do. Three ways take turns: `live` without the cache and `cached` with it, both padded, and `packed`:
with a cache, without padding, and with a teacher in bfloat16. A figure is the CPU time of all eight runs of one way
over that of all eight live ones, once a round. Starting a process, reading data and loading models, which all do, are
left out, and so is validation.

`student...`: of one step, by CPU time, what is not the teacher's forward pass, and so cannot be saved: as above, and
with a student without dropout of attention weights. `--only student` measures that alone.
"""

from __future__ import annotations

import copy
import functools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.measure import Report, command, in_turns, median
from benchmarks.padding import lognormal
from benchmarks.step_cost import step_of
from potstill.data.batch import Batch
from potstill.data.microbatch import cut
from potstill.losses.terms import ForwardKL
from potstill.models.packing import set_packing
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
from potstill.signals.remembered import RememberedTeacher

RUNS, EPOCHS = 8, 3
STEP_ROUNDS = 9
TASK, NEEDS = TASKS["text_classification"], Needs(logits=True)


@dataclass(frozen=True)
class Size:
    width: int
    num_examples: int
    length: int  # at most, in tokens
    rounds: int


SIZES = {"smoke": Size(32, 16, 16, 2), "cpu": Size(192, 64, 128, 2), "gpu": Size(768, 2048, 128, 3)}
WAYS = ("live", "cached", "packed")
BATCH, LABELS, VOCABULARY = 16, 20, 2000


def measure(suite: str, only: tuple[str, ...] = ("",)) -> Report:
    report = Report()
    device = torch.device("cuda" if suite == "gpu" else "cpu")
    if "whole".startswith(only):
        measure_sweeps(SIZES[suite], device, report)
    if "student".startswith(only) and device.type == "cpu":
        measure_student(SIZES[suite], report)
    return report


def measure_sweeps(size: Size, device: torch.device, report: Report) -> None:
    padded = LiveTeacher(bert(12, size.width), TASK, None).to(device)
    teachers = {"live": padded, "cached": padded, "packed": packing(padded)}
    batches = [batch.to(device) for batch in texts(size)]
    for number in range(size.rounds):
        with tempfile.TemporaryDirectory() as folder:
            report.rounds[str(number)] = one_round(teachers, batches, Path(folder), size, device)
    for way in WAYS[1:]:
        rounds = report.rounds.values()
        report.figures[f"{way}_over_live"] = median([sum(each[way]) / sum(each["live"]) for each in rounds])


def measure_student(size: Size, report: Report) -> None:
    """Steps on one batch whose teacher has answered already, in turns with its forward pass."""
    batch, teacher = texts(size)[0], LiveTeacher(bert(12, size.width), TASK, None)
    students = {"student": bert(3, size.width), "student_without_attention_dropout": bert(3, size.width, 0.0)}
    steps = {name: step_of(module_of(each, RememberedTeacher(teacher))) for name, each in students.items()}
    ways: dict[str, Callable[[], Any]] = {name: functools.partial(step, batch) for name, step in steps.items()}
    rounds = in_turns(ways | {"teacher": functools.partial(teacher.signal, batch, NEEDS)}, STEP_ROUNDS)
    for name in students:
        pairs = [(own["cpu"], other["cpu"]) for own, other in zip(rounds[name], rounds["teacher"], strict=True)]
        report.figures[f"{name}_over_live"] = median([own / (own + other) for own, other in pairs])
    report.rounds["student"] = rounds


def packing(teacher: LiveTeacher) -> LiveTeacher:
    model = copy.deepcopy(teacher.model).bfloat16()
    set_packing(model, "on", "teacher")
    return LiveTeacher(model, TASK, None)


def one_round(
    teachers: Mapping[str, LiveTeacher], batches: list[Batch], folder: Path, size: Size, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every run: of CPU time where there is no accelerator."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    for run in range(RUNS):
        turn = run % len(WAYS)
        for way in [*WAYS[turn:], *WAYS[:turn]]:
            began_at = clock()
            teacher = teachers[way] if way == "live" else cached(teachers[way], folder / way)
            train(teacher, batches, size, device, seed=run, packs=way == "packed")
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


def train(
    teacher: SignalSource, batches: list[Batch], size: Size, device: torch.device, *, seed: int, packs: bool
) -> None:
    torch.manual_seed(seed)
    student = bert(3, size.width).to(device)  # type: ignore[arg-type]
    set_packing(student, "on" if packs else "off", "student")
    step = step_of(module_of(student, teacher))
    for _ in range(EPOCHS):
        for number in torch.randperm(len(batches)).tolist():
            step(batches[number])


def module_of(student: BertForSequenceClassification, teacher: SignalSource) -> DistillationModule:
    return DistillationModule(
        student,
        Objective({"kd": ForwardKL(temperature=2.0)}),
        TASK,
        teacher,
        make_optimizer=functools.partial(torch.optim.AdamW, lr=1.0e-3),
        make_schedule=functools.partial(schedule_of, name="constant", warmup_fraction=0.0, num_steps=1),
        weight_decay=0.01,
        clip_norm=None,
    )


def bert(num_layers: int, width: int, attention_dropout: float = 0.1) -> BertForSequenceClassification:
    sizes = {
        "attention_probs_dropout_prob": attention_dropout,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": width // 16,
    }
    return BertForSequenceClassification(
        BertConfig(vocab_size=VOCABULARY, num_hidden_layers=num_layers, num_labels=LABELS, **sizes)  # type: ignore[call-arg]
    )


def texts(size: Size) -> list[Batch]:
    """Each batch as long as its longest text."""
    lengths = torch.from_numpy(np.random.default_rng(0).choice(lognormal(), size.num_examples)).clamp(max=size.length)
    mask = (torch.arange(size.length) < lengths.unsqueeze(1)).long()
    ids = torch.randint(1, VOCABULARY, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    labels = torch.arange(size.num_examples) % LABELS
    whole = Batch({"input_ids": ids, "attention_mask": mask}, labels, tuple(map(str, ids.tolist())))
    return cut(whole, BATCH, None)


def main(arguments: Sequence[str] | None = None) -> None:
    command("sweep", measure, __doc__, arguments, in_parts=True)


if __name__ == "__main__":
    main()
