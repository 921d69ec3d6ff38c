"""What a teacher remembers, kept with the run."""

from __future__ import annotations

from typing import Any

from pytorch_lightning.callbacks import Callback
from typing_extensions import override

from potstill.distributed import of_every_rank, rank, world_size
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
