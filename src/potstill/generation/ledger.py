"""What was asked, what came back, and what may have been paid for: one SQLite file, one writer, group commit."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from potstill.errors import StoppedError, UserError
from potstill.generation.protocol import Request

FILE = "ledger.sqlite"
VERSION = 1  # of the tables
PAGE_BYTES = 4096
KEYS_A_QUERY = 500

# in_flight: marked before it is sent. lost: in flight when its process died. failed: out of attempts. refused: the
# endpoint takes no such request. `calls`, `tokens` and `money` are all that the key has cost or may have cost, so far.
TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    key BLOB PRIMARY KEY, body TEXT NOT NULL, state TEXT NOT NULL, status INTEGER, raw BLOB, reason TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, calls INTEGER NOT NULL DEFAULT 0, tokens INTEGER NOT NULL DEFAULT 0,
    money REAL NOT NULL DEFAULT 0, reserved_tokens INTEGER NOT NULL DEFAULT 0, reserved_money REAL NOT NULL DEFAULT 0,
    sent_at REAL, done_at REAL
);
CREATE TABLE IF NOT EXISTS failures (
    key BLOB NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, status INTEGER, raw BLOB, reason TEXT
);
"""
MARK = """
INSERT INTO requests (key, body, state, calls, reserved_tokens, reserved_money, sent_at)
VALUES (?, ?, 'in_flight', 1, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET state = 'in_flight', calls = calls + 1, reserved_tokens = excluded.reserved_tokens,
    reserved_money = excluded.reserved_money, sent_at = excluded.sent_at
"""
SETTLE = """
UPDATE requests SET state = ?, status = ?, raw = ?, reason = ?, attempts = ?, tokens = tokens + ?, money = money + ?,
    calls = calls - ?, reserved_tokens = 0, reserved_money = 0, done_at = ? WHERE key = ?
"""
NOTE = "INSERT INTO failures (key, at, kind, status, raw, reason) VALUES (?, ?, ?, ?, ?, ?)"
LOSE = """
UPDATE requests SET state = 'lost', tokens = tokens + reserved_tokens, money = money + reserved_money,
    reserved_tokens = 0, reserved_money = 0 WHERE state = 'in_flight'
"""


@dataclass(frozen=True)
class Entry:
    """What the ledger holds of one request."""

    state: str
    calls: int
    tokens: int
    money: float


@dataclass(frozen=True)
class Settlement:
    """How a call ended. free: it was refused unheard, so it counts as none."""

    state: str
    status: int | None = None
    raw: bytes | None = None
    reason: str | None = None
    attempts: int = 0
    tokens: int = 0
    money: float = 0.0
    free: bool = False


class Ledger:
    """Writes of one event loop, committed together: each is on the disk when its `await` returns.

    The caller holds the lock of the directory (`tracking.lock`), which refuses a second writer.
    max_mb: the file's largest size; a write beyond it raises StoppedError, as a full disk does.
    """

    def __init__(self, directory: Path, max_mb: float | None = None) -> None:
        self.path = directory / FILE
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._connection = self._thread.submit(self._open, max_mb).result()
        self._reader = open_readonly(self.path)
        self._pending: list[tuple[tuple[str, Sequence[Any]], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self.num_commits = 0

    def _open(self, max_mb: float | None) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self.path, isolation_level=None)
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")  # WAL syncs at a commit only then
            if max_mb is not None:
                connection.execute(f"PRAGMA max_page_count = {max(1, int(max_mb * 1e6 / PAGE_BYTES))}")
            _check_version(connection, self.path)
            connection.executescript(TABLES)
            connection.execute(LOSE)
        except sqlite3.Error as error:
            raise _stopped(self.path, error) from error
        return connection

    async def mark(self, request: Request, tokens: int, money: float) -> None:
        """On record as in flight, with what it may cost: to be awaited before it is sent."""
        await self._write(MARK, (request.key, request.body, tokens, money, time.time()))

    async def settle(self, request: Request, end: Settlement) -> None:
        facts = (end.state, end.status, end.raw, end.reason, end.attempts, end.tokens, end.money)
        await self._write(SETTLE, (*facts, int(end.free), time.time(), request.key))

    async def note(self, request: Request, kind: str, status: int | None, raw: bytes | None, reason: str) -> None:
        """A send that did not end in an answer, with what came back."""
        await self._write(NOTE, (request.key, time.time(), kind, status, raw, reason))

    def entries(self, keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """Of those keys that are known."""
        rows = self._select("state, calls, tokens, money", keys)
        return {key: Entry(*facts) for key, *facts in rows}

    def replies(self, keys: Iterable[bytes]) -> dict[bytes, tuple[str, bytes | None, str | None]]:
        """State, raw body and reason of those keys that are known."""
        return {key: (state, raw, reason) for key, state, raw, reason in self._select("state, raw, reason", keys)}

    def counts(self) -> dict[str, int]:
        return dict(self._reader.execute("SELECT state, count(*) FROM requests GROUP BY state"))

    def close(self) -> None:
        self._reader.close()
        self._thread.submit(self._connection.close).result()
        self._thread.shutdown()

    def _select(self, columns: str, keys: Iterable[bytes]) -> Iterator[tuple[Any, ...]]:
        remaining = iter(keys)
        while some := list(islice(remaining, KEYS_A_QUERY)):
            marks = ",".join("?" * len(some))
            yield from self._reader.execute(f"SELECT key, {columns} FROM requests WHERE key IN ({marks})", some)

    async def _write(self, sql: str, values: Sequence[Any]) -> None:
        written = asyncio.get_running_loop().create_future()
        self._pending.append(((sql, values), written))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._drain())
        await written

    async def _drain(self) -> None:
        """One commit after another, each of all that came in during the one before."""
        loop = asyncio.get_running_loop()
        while self._pending:
            together, self._pending = self._pending, []
            try:
                await loop.run_in_executor(self._thread, self._commit, [each for each, _ in together])
            except sqlite3.Error as error:
                for _, written in together:
                    if not written.done():
                        written.set_exception(_stopped(self.path, error))
                continue
            for _, written in together:
                if not written.done():  # its task was cancelled; what it wrote stands
                    written.set_result(None)

    def _commit(self, together: list[tuple[str, Sequence[Any]]]) -> None:
        grouped: dict[str, list[Sequence[Any]]] = {}
        for sql, values in together:
            grouped.setdefault(sql, []).append(values)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            # in any order: whoever writes of a request waits until that is written, before the next
            for sql, values in grouped.items():
                self._connection.executemany(sql, values)
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self.num_commits += 1


def open_readonly(path: Path) -> sqlite3.Connection:
    """To look at a ledger, also while another process writes it."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version not in (0, VERSION):
        problem = f"was written by another version of potstill (its tables are {version}, these {VERSION})."
        raise UserError("ledger.dir", str(path.parent), problem, "Choose another directory, or that version.")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _stopped(path: Path, error: sqlite3.Error) -> StoppedError:
    return StoppedError(
        f"{path} could not be written: {error}.\n"
        "Every answer that was written before is kept. Make room (or raise ledger.max_mb), and run the command again: "
        "nothing that is in it is asked for again."
    )
