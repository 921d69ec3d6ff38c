"""A directory of stored answers: many read it, and many may write, each a file of its own."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from potstill.signals.shard import SUFFIX, DamagedError, Shard, write_shard
from potstill.tracking.lock import try_lock

log = logging.getLogger(__name__)

Sums = dict[str, float]
SHARD_BYTES = 64 * 1024 * 1024  # what is not written yet is lost with the process


class Store:
    """Answers by key, in the files of one directory.

    What was added is found at once; it is on the disk after `flush`, which happens by itself every `shard_bytes`.
    Damaged files and records are as if they were not there, which is said once a file.

    header: told to every file, beside `layout`, which says how to read what `add` is given. Files of another header are
    not read.
    """

    def __init__(self, directory: Path, header: dict[str, Any], shard_bytes: int = SHARD_BYTES) -> None:
        self.directory, self.header, self.shard_bytes = directory, header, shard_bytes
        self.layout: dict[str, Any] | None = None  # of the files; None while there are none
        self._shards: dict[Path, Shard | None] = {}  # None: damaged, or of another header
        self._places: dict[bytes, tuple[Shard, int]] = {}
        self._pending: dict[bytes, tuple[bytes, Sums]] = {}
        self._pending_bytes = 0
        self.refresh()

    def __len__(self) -> int:
        return len(self._places.keys() | self._pending.keys())

    @property
    def num_bytes(self) -> int:
        """Of the files, and of what is not written yet."""
        return self._pending_bytes + sum(shard.num_bytes for shard in self._shards.values() if shard is not None)

    def __contains__(self, key: str) -> bool:
        return (digest := digest_of(key)) in self._pending or digest in self._places

    def refresh(self) -> None:
        """Find what other processes have written meanwhile."""
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            if path in self._shards:
                continue
            self._shards[path] = shard = self._opened(path)
            if shard is not None:
                self.layout = self.layout or shard.header["layout"]
                for number, key in enumerate(shard.keys):
                    self._places.setdefault(key, (shard, number))  # an answer stays the same as long as we run

    def read(self, key: str) -> bytes | memoryview | None:
        """What was added under `key`; None where nothing was, or it is damaged."""
        digest = digest_of(key)
        if digest in self._pending:
            return self._pending[digest][0]
        if digest not in self._places:
            return None
        shard, number = self._places[digest]
        try:
            return shard.read(number)
        except DamagedError as error:
            log.warning("%s; the teacher is asked again. All that is damaged: potstill cache verify", error)
            del self._places[digest]
            return None

    def add(self, key: str, record: bytes, sums: Sums) -> None:
        """Keep `record`. sums: numbers that are added up over the records of a file, for its header."""
        self._pending[digest_of(key)] = record, sums
        self._pending_bytes += len(record)
        if self._pending_bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what no process has written yet. Raises OSError where the disk does not take it; it is still found."""
        self.refresh()
        new = {key: each for key, each in self._pending.items() if key not in self._places}
        if new:
            self.directory.mkdir(parents=True, exist_ok=True)
            sums = sum((Counter(each) for _, each in new.values()), Counter())
            header = {**self.header, "layout": self.layout, "sums": dict(sums)}
            with _reserved(self.directory) as path:
                write_shard(path, header, {key: record for key, (record, _) in new.items()})
        self.forget_pending()
        self.refresh()

    def forget_pending(self) -> None:
        """Of what is not written, keep nothing."""
        self._pending, self._pending_bytes = {}, 0

    def _opened(self, path: Path) -> Shard | None:
        try:
            shard = Shard(path)
        except (DamagedError, FileNotFoundError) as error:  # another process may have removed it
            log.warning("%s; what it holds is asked of the teacher again", error)
            return None
        if any(shard.header.get(name) != value for name, value in self.header.items()):
            log.warning("%s is of another cache, and is not read", path)
            return None
        if self.layout is not None and shard.header["layout"] != self.layout:
            log.warning("%s is laid out in another way, and is not read", path)
            return None
        return shard


@contextmanager
def _reserved(directory: Path) -> Iterator[Path]:
    """The first name that no file has and no other process is writing; its lock dies with this process."""
    for number in itertools.count():
        path = directory / f"{number:06d}{SUFFIX}"
        lock = None if path.exists() else try_lock(path.with_suffix(".lock"))
        if lock is None:
            continue
        try:
            if not path.exists():  # else it was written, and its lock let go of, since we looked
                yield path
                return
        finally:
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


def digest_of(key: str) -> bytes:
    """The 16 bytes by which a file knows an example's key."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()
