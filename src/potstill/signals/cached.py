"""A teacher whose answers are kept on disk, for other epochs and other runs."""

# B batch, L length, N rows, D width

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from potstill.data.batch import Batch
from potstill.errors import UserError
from potstill.losses.sparse import SparseLogits
from potstill.models.task import Task
from potstill.signals.cache import Cache
from potstill.signals.codecs import Exact, Stored
from potstill.signals.live import LiveTeacher
from potstill.signals.once import AskedOnce
from potstill.signals.protocol import Needs, Signal
from potstill.signals.store import digest_of
from potstill.tracking.storage import not_written

log = logging.getLogger(__name__)

TAP = "tap:"
Record = bytes | memoryview
_PART = struct.Struct("<IQ")  # of each part of a record: rows, bytes


class CachedTeacher(AskedOnce[Record]):
    """Answers from `cache` what is there, and otherwise from the live teacher.

    What the live teacher says is kept from `begin_writing` on: before, it is asked about samples, in other company than
    in training, which moves the last bits of an answer. A disk that is full ends the keeping, not the training.
    """

    def __init__(self, source: LiveTeacher, needs: Needs, cache: Cache, *, may_write: bool = True) -> None:
        super().__init__(source, source.task, needs)
        self.live, self.cache, self.may_write = source, cache, may_write
        self.is_writing = self.must_write = False

    @property
    def is_sparse(self) -> bool:
        """Whether only some classes of the logits are kept."""
        return not isinstance(self.cache.codecs.get("logits", Exact()), Exact)

    @property
    def gives_head(self) -> bool:
        """Whether what is kept takes the place of a language model's logits: some classes, or the rows before its
        output layer, where these say all that its logits do.
        """
        return self.is_sparse or self.live.gives_head

    def begin_writing(self, *, must_write: bool = False) -> None:
        """Keep answers from now on. must_write: raise StoppedError where the disk does not take them."""
        self.is_writing, self.must_write = self.may_write, must_write

    def fill(self, batch: Batch) -> int:
        """Ask about the examples of `batch` that are not known, and return how many these were."""
        unknown = {key: example for example, key in enumerate(batch.keys) if key not in self.cache.store}
        if unknown:
            with torch.inference_mode():
                self._asked(batch.take(list(unknown.values())))
        return len(unknown)

    def flush(self) -> None:
        """Put on the disk what was kept so far."""
        try:
            self.cache.store.flush()
        except OSError as error:
            self._failed(error)

    def _unkept(self, batch: Batch, needs: Needs) -> Signal:
        if self.is_sparse and needs.head:  # the live teacher may have no head that can be told
            needs = replace(needs, logits=True, head=False)
        signal = super()._unkept(batch, needs)
        if self.is_sparse and needs == self.needs:  # no example: no class either
            none = torch.zeros(0, 1, device=batch.labels.device)
            signal.logits, signal.sparse = None, SparseLogits(none, none.long())
        return signal

    def _keeps(self, needs: Needs) -> bool:
        return super()._keeps(replace(needs, logits=True, head=False) if needs.head else needs)

    def _known(self, key: str) -> Record | None:
        return self.cache.store.read(key)

    def _asked(self, batch: Batch) -> dict[str, Record]:
        parts = self._parts(batch)
        layouts = {name: self.cache.codecs[name].layout(rows) for name, rows in parts.items()}
        store = self.cache.store
        if store.layout is None:
            store.layout = layouts
        assert store.layout == layouts, "the teacher's answers changed their shape"
        encoded = self._encoded(parts, batch)
        asked: dict[str, Record] = {key: record for key, record, _ in encoded}
        if self.is_writing:
            self._keep(encoded, layouts)
        return asked

    def _together(self, answers: Sequence[Record], batch: Batch, needs: Needs) -> Signal:
        layouts, device = self.cache.store.layout, batch.labels.device
        assert layouts is not None
        parts: dict[str, Any] = {}
        for name, stored in _by_part(answers, self.cache.codecs).items():
            expected = rows_of_examples(self.task, batch, name)
            assert [each.num_rows for each in stored] == expected, f"{name} of other rows than the batch's"
            parts[name] = self.cache.codecs[name].decode(stored, layouts[name]).to(device)
        return self._signal(parts, batch, needs)

    def _parts(self, batch: Batch) -> dict[str, Tensor]:
        """What the model says, by part, the rows of all examples one after another."""
        if self.task.is_causal and self.needs.logits and not self.is_sparse:
            logits, signal = self.live.below_head(batch, self.needs)
        else:
            signal = self.live.signal(batch, self.needs)
            logits = signal.logits
        parts = {f"{TAP}{path}": hidden for path, hidden in signal.hidden.items()}
        if logits is not None:
            parts["logits"] = logits
        if signal.embeddings is not None:
            parts["embeddings"] = signal.embeddings.flatten(0, 1)
        bad = [name for name, rows in parts.items() if not rows.isfinite().all()]
        if bad:
            problem = f"gives {', '.join(bad)} that are NaN or infinite, which is not worth keeping."
            fix = "Its weights may be damaged; float16 overflows where float32 or bfloat16 does not: teacher.dtype."
            raise UserError("teacher.path", self.live.model.name_or_path, problem, fix)
        return parts

    def _encoded(self, parts: Mapping[str, Tensor], batch: Batch) -> list[tuple[str, bytes, dict[str, float]]]:
        """For each example its key, its record and what is added up over records."""
        seeds = [int.from_bytes(digest_of(key)[:7], "little") for key in batch.keys]
        sizes = {name: rows_of_examples(self.task, batch, name) for name in self.cache.codecs}
        encoded = {name: self.cache.codecs[name].encode(parts[name], sizes[name], seeds) for name in sizes}
        records = []
        for example, key in enumerate(batch.keys):
            own = {name: (sizes[name][example], each[example]) for name, each in encoded.items()}
            record = b"".join(_PART.pack(rows, len(each.data)) + each.data for rows, each in own.values())
            sums = {f"rows/{name}": float(rows) for name, (rows, _) in own.items()}
            records.append((key, record, sums | {f"mass/{name}": each.mass for name, (_, each) in own.items()}))
        return records

    def _keep(self, encoded: list[tuple[str, bytes, dict[str, float]]], layouts: dict[str, Any]) -> None:
        try:
            self.cache.describe(layouts)
            for key, record, sums in encoded:
                self.cache.store.add(key, record, sums)
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        stopped = not_written(self.cache.directory, error)
        self.is_writing = False
        self.cache.store.forget_pending()
        if self.must_write:
            raise stopped from error
        log.warning("%s Until then the teacher is asked every time.", stopped)

    def _signal(self, parts: dict[str, Any], batch: Batch, needs: Needs) -> Signal:
        logits, embeddings = parts.get("logits"), parts.get("embeddings")
        signal = Signal(hidden={path: parts[f"{TAP}{path}"] for path in self.needs.taps})
        if isinstance(logits, SparseLogits):
            signal.sparse = logits
        elif needs.head:
            signal.head = self.live.head_of(parts["logits"])
        elif logits is not None:
            signal.logits = self.live.logits_of(logits) if self.task.is_causal else logits
        if embeddings is not None:
            signal.embeddings = embeddings.unflatten(0, (len(batch), -1))
        return signal


def parts_of(needs: Needs) -> list[str]:
    """The names under which the parts of a signal are kept."""
    return [name for name in ("logits", "embeddings") if getattr(needs, name)] + [f"{TAP}{path}" for path in needs.taps]


def rows_of_examples(task: Task, batch: Batch, part: str) -> list[int]:
    """How many rows of a part each example of the batch has."""
    num_examples = len(batch)
    if part.startswith(TAP):
        lengths = task.lengths(batch.on_host)
        return [1] * num_examples if lengths is None else lengths.view(num_examples, -1).sum(dim=1).tolist()
    if part == "embeddings":
        return [batch.inputs["input_ids"].shape[1]] * num_examples
    rows = task.scored_rows(batch.on_host)
    if rows is None:
        return [1] * num_examples
    return torch.bincount(rows // batch.labels.shape[1], minlength=num_examples).tolist()


def caches_within(source: Any) -> Iterator[CachedTeacher]:
    """`source`, or the sources that it asks, as far as these keep their answers on disk."""
    if isinstance(source, CachedTeacher):
        yield source
    for inner in [getattr(source, "source", None), *getattr(source, "members", {}).values()]:
        if inner is not None:
            yield from caches_within(inner)


def _by_part(records: Sequence[Record], names: Mapping[str, Any]) -> dict[str, list[Stored]]:
    parts: dict[str, list[Stored]] = {name: [] for name in names}
    for record in records:
        view, at = memoryview(record), 0
        for stored in parts.values():
            num_rows, length = _PART.unpack_from(view, at)
            at += _PART.size
            stored.append(Stored(view[at : at + length], num_rows))
            at += length
    return parts
