"""Whatever becomes of the processes, the disk and the bytes: what is served is what was added, or nothing."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from potstill.signals.shard import DamagedError, Shard, write_shard
from potstill.signals.store import Store
from tests.tiers import one_and_others

HEADER = {"cache": "this"}
WRITER = """
import sys
from pathlib import Path
from tests.signals.test_store import filled
filled(Path(sys.argv[1]), range(*map(int, sys.argv[2:4])), shard_bytes=int(sys.argv[4]), tell=True)
"""


def record_of(number: int) -> bytes:
    return f"record {number} ".encode() * (1 + number % 7)


def store_at(directory: Path, **options: int) -> Store:
    store = Store(directory, HEADER, **options)
    store.layout = store.layout or {"part": {}}
    return store


def filled(directory: Path, numbers: range, *, shard_bytes: int = 1000, tell: bool = False) -> Store:
    store = store_at(directory, shard_bytes=shard_bytes)
    for number in numbers:
        if str(number) not in store:
            store.add(str(number), record_of(number), {"rows": 1.0})
        if tell:
            print(number, flush=True)
    store.flush()
    return store


def served(directory: Path, numbers: range) -> list[int]:
    """The numbers that are found; each with its own record, or the test fails."""
    store, found = store_at(directory), []
    for number in numbers:
        record = store.read(str(number))
        if record is not None:
            assert bytes(record) == record_of(number)
            found.append(number)
    return found


def writer(directory: Path, first: int, end: int, shard_bytes: int) -> subprocess.Popen[str]:
    arguments = [str(directory), str(first), str(end), str(shard_bytes)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)


def test_what_was_added_is_found_at_once_and_by_others_once_it_is_written(tmp_path: Path) -> None:
    store, other = store_at(tmp_path), store_at(tmp_path)
    store.add("1", record_of(1), {})
    assert store.read("1") == record_of(1)
    assert "1" not in store_at(tmp_path)
    store.flush()
    other.refresh()
    assert bytes(other.read("1") or b"") == record_of(1)
    assert other.read("2") is None


def test_records_are_written_once_they_are_many_and_nothing_is_left_beside_them(tmp_path: Path) -> None:
    filled(tmp_path, range(200))
    assert served(tmp_path, range(300)) == list(range(200))
    assert len(list(tmp_path.iterdir())) > 5
    assert {path.suffix for path in tmp_path.iterdir()} == {".signals"}


@pytest.mark.parametrize("place", one_and_others("record", "magic", "header", "index", "footer", "end"))
def test_a_flipped_byte_is_never_served(tmp_path: Path, place: str) -> None:
    filled(tmp_path, range(20), shard_bytes=10_000)
    [path] = tmp_path.glob("*.signals")
    content = bytearray(path.read_bytes())
    at = {"magic": 3, "header": 30, "index": -60, "footer": -20, "end": -3, "record": content.index(b"record 7")}[place]
    content[at] ^= 4
    path.write_bytes(content)
    expected = [number for number in range(20) if number != 7] if place == "record" else []
    assert served(tmp_path, range(20)) == expected
    filled(tmp_path, range(20))
    assert served(tmp_path, range(20)) == [*expected, *([] if place == "record" else range(20))]


def test_every_byte_of_a_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "000000.signals"
    write_shard(path, HEADER, {bytes([number]) * 16: record_of(number) for number in range(3)})
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DamagedError):
            [Shard(path).read(number) for number in range(3)]


@pytest.mark.parametrize("left", [0, 1, 40, -1])
def test_a_file_that_was_cut_off_is_as_if_it_were_not_there(tmp_path: Path, left: int) -> None:
    filled(tmp_path, range(20), shard_bytes=10_000)
    [path] = tmp_path.glob("*.signals")
    path.write_bytes(path.read_bytes()[:left])
    assert served(tmp_path, range(20)) == []


def test_files_of_another_cache_are_not_read(tmp_path: Path) -> None:
    filled(tmp_path, range(5))
    assert len(Store(tmp_path, {"cache": "another"})) == 0


def test_a_writer_that_is_killed_leaves_whole_files_and_its_place_to_the_next(tmp_path: Path) -> None:
    process = writer(tmp_path, 0, 10_000_000, 500)
    assert process.stdout
    for line in process.stdout:
        if int(line) >= 400:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    found = served(tmp_path, range(100_000))
    assert len(found) > 300
    filled(tmp_path, range(len(found) + 50))
    assert served(tmp_path, range(len(found) + 50)) == list(range(len(found) + 50))


def test_two_writers_at_once_write_each_its_own_files(tmp_path: Path) -> None:
    processes = [writer(tmp_path, first, first + 300, 300) for first in (0, 150)]
    assert [process.communicate()[0].count("\n") for process in processes] == [300, 300]
    assert [process.returncode for process in processes] == [0, 0]
    assert served(tmp_path, range(450)) == list(range(450))
    assert {path.suffix for path in tmp_path.iterdir()} == {".signals"}


def test_a_full_disk_is_told_and_leaves_no_file_behind(tmp_path: Path) -> None:
    store = filled(tmp_path, range(5), shard_bytes=1_000_000)
    store.add("large", b"x" * 100_000, {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            store.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert store.read("large") == b"x" * 100_000
    assert "large" not in store_at(tmp_path)
    assert served(tmp_path, range(5)) == list(range(5))
    assert {path.suffix for path in tmp_path.iterdir()} == {".signals"}
    store.flush()
    assert "large" in store_at(tmp_path)
