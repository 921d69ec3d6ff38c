"""A file of stored answers: written once, whole or not at all, and read where it lies.

    magic | length of header, header (JSON) | records, end to end | index | footer

The index holds of every record its key, place and checksum; the footer, where the index begins, and a checksum of index
and header. A file that was cut off has no footer, and a byte that was flipped is in some checksum.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from potstill.tracking.storage import written_aside

SUFFIX = ".signals"
_MAGIC = b"potstill signals\n"
_LENGTH = struct.Struct("<I")  # of the header
_FOOTER = struct.Struct("<QQQ8s")  # where the index begins, number of records, checksum, end
_END = b"the end\n"
_ENTRY = np.dtype([("key", "V16"), ("offset", "<u8"), ("length", "<u8"), ("checksum", "<u8")])


class DamagedError(Exception):
    """A file, or a record of it, is not what was written. The message says which."""


def write_shard(path: Path, header: Mapping[str, Any], records: Mapping[bytes, bytes]) -> None:
    """Write `records` by their keys of 16 bytes. After any error there is no such file."""
    index = np.zeros(len(records), _ENTRY)
    head = json.dumps(header, sort_keys=True).encode()
    with written_aside(path) as file:
        file.write(_MAGIC + _LENGTH.pack(len(head)) + head)
        for number, (key, record) in enumerate(records.items()):
            index[number] = (key, file.tell(), len(record), xxhash.xxh3_64_intdigest(record))
            file.write(record)
        start, entries = file.tell(), index.tobytes()
        file.write(entries + _FOOTER.pack(start, len(records), xxhash.xxh3_64_intdigest(entries + head), _END))


class Shard:
    """One file, mapped into memory. Raises DamagedError where it is not whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._bytes = memoryview(
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
            )
        head, start, num_records, checksum = self._outline()
        entries = self._bytes[start : start + num_records * _ENTRY.itemsize]
        if xxhash.xxh3_64_intdigest(bytes(entries) + bytes(head)) != checksum:
            raise DamagedError(f"{path}: its index is damaged")
        self.header: dict[str, Any] = json.loads(bytes(head))
        self._index = np.frombuffer(entries, _ENTRY)
        self.keys: list[bytes] = [bytes(key) for key in self._index["key"]]

    @property
    def num_bytes(self) -> int:
        return len(self._bytes)

    def read(self, number: int) -> memoryview:
        """The record, as it was written. Raises DamagedError where it is not."""
        _, offset, length, checksum = self._index[number].item()
        record = self._bytes[offset : offset + length]
        if xxhash.xxh3_64_intdigest(record) != checksum:
            raise DamagedError(f"{self.path}: record {number} is damaged")
        return record

    def _outline(self) -> tuple[memoryview, int, int, int]:
        """The header, where the index begins, how many records there are, and the checksum of both."""
        first = len(_MAGIC) + _LENGTH.size
        if len(self._bytes) < first + _FOOTER.size or self._bytes[: len(_MAGIC)] != _MAGIC:
            raise DamagedError(f"{self.path}: no file of signals")
        start, num_records, checksum, end = _FOOTER.unpack(self._bytes[-_FOOTER.size :])
        [length] = _LENGTH.unpack(self._bytes[len(_MAGIC) : first])
        expected = start + num_records * _ENTRY.itemsize + _FOOTER.size
        if end != _END or expected != len(self._bytes) or first + length > start:
            raise DamagedError(f"{self.path}: it was cut off, or its ends are damaged")
        return self._bytes[first : first + length], start, num_records, checksum
