"""What jobs that run one after another in one process share: encoded data, the frozen teacher, the logits it gave.

A job gets bit for bit what it would have made alone. So things are kept under a key of all that decides them, the files
that are read included; what draws random numbers in the making is not kept; and what a job changes (a data module, the
teacher's device) is its own or is put back.
"""

from __future__ import annotations

import copy
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from potstill.commands.preflight import num_workers
from potstill.config.schema import ModelConfig, TrainConfig
from potstill.data.module import DataModule
from potstill.data.tokenizers import tokenizer_fingerprint
from potstill.fingerprint import paths_in
from potstill.models.task import Task
from potstill.objective import Objective
from potstill.signals.cached import CachedTeacher
from potstill.signals.live import LiveTeacher
from potstill.signals.remembered import RememberedTeacher

NUM_DATA = 4  # mapped from the disk; with labels_per_class, each seed of a sweep has its own
NUM_TEACHERS = 1
NUM_MEMORIES = 4
MAX_MEMORY_BYTES = 1e9  # of the logits for one run

# What moves neither which examples a teacher is asked about together nor its answer
NO_MATTER_TO_TEACHER = ("run", "student", "loss", "optim", "logger", "callbacks", "log_every", "returns")

Made = TypeVar("Made")


@dataclass
class Source:
    """Data as a model will see it.

    licence_records: of text that teachers wrote (`generation.terms`). left_out: what of it is not learnt, and why.
    """

    task: Task
    data: DataModule
    label_names: list[str] | None
    tokenizer: PreTrainedTokenizerBase | None
    licence_records: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)


class Kept(Generic[Made]):
    """The things used last, at most `max_things`."""

    def __init__(self, max_things: int) -> None:
        self.max_things = max_things
        self.things: OrderedDict[str, Made] = OrderedDict()

    def take(self, key: Any, make: Callable[[], Made]) -> Made:
        """What is kept under `key`, else what `make` returns, kept from now on.

        Unless it drew random numbers: a job that found it would not draw them, and what it draws next would be other.
        """
        name = json.dumps(key, sort_keys=True, default=str)
        if name not in self.things:
            while len(self.things) >= self.max_things:  # first: old and new together may be more than fits
                self.things.popitem(last=False)
            before = torch.get_rng_state()
            made = make()
            if not torch.equal(before, torch.get_rng_state()):
                return made
            self.things[name] = made
        self.things.move_to_end(name)
        return self.things[name]


@dataclass
class KeptTeacher:
    """memories: what it said, by the order in which it was asked: in other company, an answer's last bits differ."""

    model: nn.Module
    memories: Kept[RememberedTeacher] = field(default_factory=lambda: Kept(NUM_MEMORIES))

    @property
    def models(self) -> list[nn.Module]:
        return list(self.model) if isinstance(self.model, nn.ModuleList) else [self.model]


_sources: Kept[Source] = Kept(NUM_DATA)
_teachers: Kept[KeptTeacher] = Kept(NUM_TEACHERS)


def forget() -> None:
    """Keep nothing of what was made so far."""
    _sources.things.clear()
    _teachers.things.clear()


def shared_source(config: TrainConfig, make: Callable[[], Source], *, labelled_only: bool) -> Source:
    """What `make` returns, or returned for the same data, with a data module of its own."""
    for teacher in _teachers.things.values():
        teacher.model.to("cpu")  # a job without a teacher has the accelerator to itself
    if not config.data.source.get("_target_", "").startswith("potstill."):
        return make()  # nobody knows what else decides what it reads
    source = copy.copy(_sources.take(_source_key(config, labelled_only=labelled_only), make))
    source.data = data = copy.copy(source.data)  # trainers leave themselves in it
    data.batch_size, data.length_grouping = config.data.batch_size, config.data.length_grouping
    data.seed, data.num_workers = config.seed, num_workers(config.hardware)
    return source


def shared_teacher(config: TrainConfig, source: Source, make: Callable[[], nn.Module]) -> nn.Module:
    """The frozen model, or list of models, that `make` returns, or returned for the same teacher; on the CPU."""
    if config.hardware.strategy == "fsdp":
        return make()  # sharded in place, it would be of no use to another
    tokenizer = tokenizer_fingerprint(source.tokenizer) if source.tokenizer else None
    options = {**asdict(config.teacher), "remember": None, "cache": None, "combine": None, "route_by": None}
    key = [options, _stamps(options), source.task.name, tokenizer]
    return _teachers.take(key, lambda: KeptTeacher(make())).model


def shared_memory(
    config: TrainConfig, source: Source, objective: Objective, live: LiveTeacher | CachedTeacher, name: str
) -> RememberedTeacher:
    """`live`, with what it said in an earlier job that asked it the same. name: its key in the config."""
    teacher = next((kept for kept in _teachers.things.values() if live.model in kept.models), None)
    num_bytes = 4 * source.data.num_examples("train") * len(source.label_names or ())
    if teacher is None or num_bytes > MAX_MEMORY_BYTES or config.run.resume:  # a resumed run brings its own
        return RememberedTeacher(live)
    asked = {name: value for name, value in asdict(config).items() if name not in NO_MATTER_TO_TEACHER}
    needs = asdict(objective.needs_teacher)
    key = [asked, source.data.fingerprint, objective.labelled_only, needs, name]
    return teacher.memories.take(key, lambda: RememberedTeacher(live))


def _source_key(config: TrainConfig, *, labelled_only: bool) -> list[Any]:
    data, limit = asdict(config.data), config.limit_batches
    del data["length_grouping"]
    size = data.pop("batch_size")
    student = _weights(config.student)
    teacher = [_weights(model) for model in config.teacher.models.values()]  # either may bring the tokenizer
    names = {**data, "student": {**student, "tokenizer": config.student.tokenizer}, "teacher": teacher}
    seed = config.seed if config.data.labels_per_class is not None else None
    return [names, _stamps(names), seed, labelled_only, limit and [limit, size]]


def _weights(model: ModelConfig) -> dict[str, Any]:
    return {"path": model.path, "revision": model.revision, "trust_remote_code": model.trust_remote_code}


def _stamps(config: dict[str, Any]) -> list[Any]:
    """What changes with every file that the config names: each is opened, so that a network's disk looks again."""
    paths = sorted({Path(text) for text in paths_in(config) if Path(text).exists()})
    return [[str(file), *_stamp(file)] for path in paths for file in [path, *sorted(path.rglob("*"))] if file.is_file()]


def _stamp(file: Path) -> tuple[int, ...]:
    with file.open("rb") as stream:
        facts = os.fstat(stream.fileno())
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns
