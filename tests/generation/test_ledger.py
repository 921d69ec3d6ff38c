from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from potstill.errors import StoppedError, UserError
from potstill.generation.ledger import Ledger, Settlement
from potstill.generation.protocol import Request, make_request


def request(number: int) -> Request:
    return make_request({"prompt": f"{number}"}, "endpoint", "1", 0)


def test_a_call_that_was_in_flight_at_a_kill_counts_as_paid_for(tmp_path: Path):
    ledger = Ledger(tmp_path)
    asyncio.run(ledger.mark(request(1), tokens=70, money=0.5))
    assert ledger.counts() == {"in_flight": 1}
    ledger.close()  # without a settlement, as after a kill
    later = Ledger(tmp_path)
    [entry] = later.entries([request(1).key]).values()
    assert (entry.state, entry.calls, entry.tokens, entry.money) == ("lost", 1, 70, 0.5)
    later.close()


def test_what_waits_together_is_committed_together(tmp_path: Path):
    async def write_many() -> int:
        ledger = Ledger(tmp_path)
        await asyncio.gather(*(ledger.mark(request(number), 1, 0.0) for number in range(500)))
        assert ledger.counts() == {"in_flight": 500}
        ledger.close()
        return ledger.num_commits

    assert asyncio.run(write_many()) <= 5


def test_an_answer_is_on_the_disk_when_it_is_acknowledged(tmp_path: Path):
    async def write() -> None:
        ledger = Ledger(tmp_path)
        await ledger.mark(request(1), 70, 0.5)
        await ledger.settle(request(1), Settlement("done", 200, b"raw", tokens=9, money=0.1))
        other = sqlite3.connect(ledger.path)  # as another process sees it
        assert other.execute("SELECT state, raw, tokens, money, calls FROM requests").fetchall() == [
            ("done", b"raw", 9, 0.1, 1)
        ]
        other.close()
        ledger.close()

    asyncio.run(write())


def test_a_full_disk_stops_with_what_is_kept(tmp_path: Path):
    async def fill() -> None:
        ledger = Ledger(tmp_path, max_mb=0.1)
        await ledger.mark(request(0), 1, 0.0)
        await ledger.settle(request(0), Settlement("done", 200, b"kept"))
        try:
            for number in range(1, 100):
                await ledger.mark(request(number), 1, 0.0)
                await ledger.settle(request(number), Settlement("done", 200, b"x" * 10_000))
        finally:
            assert ledger.replies([request(0).key])[request(0).key][1] == b"kept"
            ledger.close()

    with pytest.raises(StoppedError, match=r"could not be written: database or disk is full.\nEvery answer"):
        asyncio.run(fill())
    assert Ledger(tmp_path).counts()["done"] >= 1


def test_a_ledger_of_another_version_is_not_written(tmp_path: Path):
    Ledger(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UserError, match="another version"):
        Ledger(tmp_path)


def test_keys_depend_on_all_that_decides_the_answer_and_not_on_its_spelling():
    body = {"prompt": "p", "temperature": 0.0}
    keys = [
        make_request(body, "endpoint", "1", 0).key,
        make_request({**body, "temperature": 0.1}, "endpoint", "1", 0).key,
        make_request(body, "another", "1", 0).key,
        make_request(body, "endpoint", "2", 0).key,
        make_request(body, "endpoint", "1", 1).key,
    ]
    assert len(set(keys)) == len(keys)
    assert make_request(dict(reversed(body.items())), "endpoint", "1", 0).key == keys[0]
