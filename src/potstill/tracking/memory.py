"""What a teacher remembers, kept with the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from potstill.distributed import of_every_rank, rank, world_size
from potstill.signals.cached import CachedTeacher
from potstill.signals.remembered import RememberedTeacher
from potstill.signals.several import SeveralTeachers


class MemoryInCheckpoints(Callback):
    """Keeps in every checkpoint what each rank's teacher remembers.

    What a teacher says of an example differs in the last bits with the examples it is padded and multiplied with. A
    resumed run that asked again would ask in other company, and would end with other weights.

    is_same: teacher and data are those of the checkpoint; else what it holds is not taken over.
    """

    def __init__(self, teacher: RememberedTeacher | SeveralTeachers, *, is_same: bool = True) -> None:
        self.teacher, self.is_same = teacher, is_same

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"of_ranks": of_every_rank(self.teacher.state_dict())}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        states = state_dict["of_ranks"]
        if self.is_same:
            self.teacher.load_state_dict([states[rank()]] if len(states) == world_size() else states)


class SignalsOnDisk(Callback):
    """Lets teachers keep their answers while a training asks them, and puts these on the disk.

    Before every checkpoint: a training that goes on from it finds what it was told, and ends with the same weights. At
    the end of every epoch and of the training, whatever ended it.
    """

    def __init__(self, sources: Sequence[CachedTeacher]) -> None:
        self.sources = sources

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for source in self.sources:
            source.begin_writing()

    @override
    def state_dict(self) -> dict[str, Any]:
        self._flush()
        return {}

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._flush()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._flush()

    def _flush(self) -> None:
        for source in self.sources:
            source.flush()
