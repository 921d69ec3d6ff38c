"""potstill cache: the teacher asked about all training data, before any training, for all that share the directory."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source
from potstill.commands.check import check_parts
from potstill.commands.preflight import explained, training_device
from potstill.commands.recording import write_config
from potstill.config.compose import typed
from potstill.config.rerun import read_config
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate
from potstill.data.batch import Batch
from potstill.data.microbatch import cut
from potstill.data.module import DataModule
from potstill.errors import UserError
from potstill.hardware.launch import as_rank, launch
from potstill.hardware.place import Place, launched_place
from potstill.signals.cached import TAP, CachedTeacher, caches_within
from potstill.signals.protocol import SignalSource
from potstill.signals.several import SeveralTeachers

log = logging.getLogger(__name__)

TELL_EVERY_S = 10.0


def main(config: DictConfig) -> None:
    cache(typed(config, TrainConfig), list(HydraConfig.get().overrides.task))


def cache(config: TrainConfig, overrides: Sequence[str]) -> None:
    """Fill the cache of `config`, on as many ranks as it asks for. What is there already is not asked again."""
    check_cache(config)
    place = check_parts(config)
    if not place.has_to_launch:
        fill(config, place)
        return
    with tempfile.TemporaryDirectory(prefix="potstill-") as folder:
        write_config(config, overrides, Path(folder))  # all that a rank is told: it composes nothing anew
        launch(place.world_size, [sys.executable, "-m", "potstill.commands.cache", folder])


def check_cache(config: TrainConfig) -> None:
    """Raises UserError where nothing would be kept, before anything is loaded."""
    validate(config)
    if config.teacher.cache.dir is None:
        raise UserError("teacher.cache.dir", None, "leaves no place to keep signals in.", "For example: runs/signals")
    if config.data.pair_by_label or not config.teacher.cache.write:
        key = "data.pair_by_label" if config.data.pair_by_label else "teacher.cache.write"
        problem = "leaves nothing to keep: pairs are drawn anew for every epoch, and nothing is kept without write."
        raise UserError(key, key == "data.pair_by_label", problem, "Leave it out.")


def fill(config: TrainConfig, place: Place) -> None:
    """This rank's share: the examples that it would train on, in the order and the company of the first epoch."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    with explained():
        objective = assemble_objective(config)
        if not objective.is_taught:
            problem = "asks a teacher nothing, so there is nothing to keep."
            raise UserError("loss.term", list(objective.terms), problem, "Choose the loss of the training: loss=kd")
        source = assemble_source(config, labelled_only=objective.labelled_only)
        teacher = assemble_models(config, source, objective).teacher
        assert teacher is not None
        device = training_device(config.hardware.accelerator)
        teacher.to(device)
        progress = Progress(source.data, place)
        for batch in source.data.first_epoch(place.rank, place.world_size):
            for piece in cut(batch, config.hardware.micro_batch_examples, config.hardware.micro_batch_tokens):
                for cached, own in shares(teacher, piece.to(device)):
                    _fill(cached, own, progress)
                progress.tell(len(piece))
    for cached in caches_within(teacher):
        cached.flush()
        log.info("%s: %s", cached.cache.directory, progress.summary())


def shares(teacher: SignalSource, batch: Batch) -> Iterator[tuple[CachedTeacher, Batch]]:
    """Each cache, with the examples that its teacher is asked about."""
    if not isinstance(teacher, SeveralTeachers):
        yield from ((cached, batch) for cached in caches_within(teacher))
        return
    for member in teacher.members.values():
        own = [number for number, route in enumerate(batch.routes) if route in member.routes]
        share = batch.take(own) if teacher.combine == "route" else batch
        yield from ((cached, share) for cached in caches_within(member))


def _fill(cached: CachedTeacher, batch: Batch, progress: Progress) -> None:
    if not cached.is_writing:
        cached.begin_writing(must_write=True)
    progress.num_asked += cached.fill(batch)
    if cached not in progress.told and cached.cache.store.layout is not None:
        progress.told.append(cached)
        progress.foretell(cached, batch)


@dataclass
class Progress:
    """What is done, and what is left, of this rank's share."""

    data: DataModule
    place: Place
    num_done: int = 0
    num_asked: int = 0
    told: list[CachedTeacher] = field(default_factory=list)
    began_at: float = field(default_factory=time.monotonic)
    told_at: float = field(default_factory=time.monotonic)

    def foretell(self, cached: CachedTeacher, batch: Batch) -> None:
        """Say what the whole will take, once the shape of the answers is known; UserError where it does not fit."""
        assert cached.cache.store.layout is not None
        total, texts = 0.0, []
        for part, taken in cached.cache.describe(cached.cache.store.layout).items():
            rows = num_rows(self.data, part, batch)
            total += taken * rows
            texts.append(f"{part} {taken:,.0f} bytes a row, {rows:,} rows")
        free = shutil.disk_usage(cached.cache.directory).free
        left = total * (1.0 - len(cached.cache.store) / max(1, self.data.num_examples("train")))
        if self.place.rank == 0:
            log.info("%s: %.1f MB; free there: %.1f MB.", "; ".join(texts), total / 1e6, free / 1e6)
        if left > free:
            problem = f"has {free / 1e6:.1f} MB free, and the signals take {left / 1e6:.1f} MB more."
            fix = "Take another disk, or for a language model teacher.cache.form=top_k"
            raise UserError("teacher.cache.dir", str(cached.cache.directory), problem, fix)

    def tell(self, num_examples: int) -> None:
        """So many more examples are done; say so from time to time."""
        self.num_done += num_examples
        now = time.monotonic()
        if now - self.told_at >= TELL_EVERY_S and self.place.rank == 0:
            self.told_at = now
            log.info(self.summary())

    def summary(self) -> str:
        total = -(-self.data.num_examples("train") // self.place.world_size)
        seconds = time.monotonic() - self.began_at
        num_bytes = sum(cached.cache.store.num_bytes for cached in self.told)
        left = max(0, total - self.num_done) * seconds / max(1, self.num_done)
        return (
            f"{self.num_done:,} of {total:,} examples, {self.num_asked:,} asked, {num_bytes / 1e6:.1f} MB, "
            f"{self.num_done / max(seconds, 1e-9):,.0f} examples/s, {left:.0f} s left"
        )


def num_rows(data: DataModule, part: str, batch: Batch) -> int:
    """Of a part of the signal, over the training examples; what no column says is as in `batch`."""
    table = data.examples["train"]
    per_example = batch.inputs["input_ids"].shape[1] if part == "embeddings" else 1
    column = "length" if part.startswith(TAP) else "num_rows"
    if part != "embeddings" and column in table.column_names:
        return sum(table[column][:])
    return per_example * len(table)


def _as_rank(folder: Path) -> None:
    place, config = launched_place(), read_config(folder)
    assert place is not None
    logging.basicConfig(format="%(message)s", level=logging.INFO if place.rank == 0 else logging.ERROR)
    torch.set_num_threads(max(1, torch.get_num_threads() // place.per_node))
    fill(config, place)


if __name__ == "__main__":
    with as_rank():
        _as_rank(Path(sys.argv[1]))
