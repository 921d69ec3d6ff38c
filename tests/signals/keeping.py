"""Teachers that keep what they say, and count what they are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from potstill.data.batch import Batch
from potstill.models.task import TASKS
from potstill.signals.cache import open_cache
from potstill.signals.cached import CachedTeacher, parts_of
from potstill.signals.codecs import Codec, Exact
from potstill.signals.identity import identity_of
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs


class Counted(LiveTeacher):
    """Counts the examples that the model, or all of it below its head, is run on."""

    num_examples = 0

    def signal(self, batch: Batch, needs: Needs) -> Any:
        self.num_examples += len(batch)
        return super().signal(batch, needs)

    def below_head(self, batch: Batch, needs: Needs) -> Any:
        self.num_examples += len(batch)
        return super().below_head(batch, needs)


def counted(model: PreTrainedModel, task: str) -> Counted:
    return Counted(model, TASKS[task], None)


def kept(
    live: LiveTeacher,
    root: Path,
    needs: Needs,
    codec: Codec | None = None,
    *,
    write: bool = True,
    tokenizer: Any = None,
    label_names: list[str] | None = None,
) -> CachedTeacher:
    """`live`, its answers to `needs` kept below `root`: logits by `codec`, everything else exactly."""
    codecs: dict[str, Codec] = dict.fromkeys(parts_of(needs), Exact())
    if codec is not None:
        codecs["logits"] = codec
    cache = open_cache(root, identity_of(live, tokenizer, label_names, codecs), codecs, write=write)
    teacher = CachedTeacher(live, needs, cache, may_write=write)
    teacher.begin_writing(must_write=True)
    return teacher
