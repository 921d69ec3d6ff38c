"""Ranks as small programs without torch: how they end, and what their launcher makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from potstill.errors import StoppedError, UserError
from potstill.hardware import launch as module
from potstill.hardware.launch import STOP_SIGNALS, launch

PREAMBLE = """
import os, signal, sys, time
from pathlib import Path
from potstill.errors import DivergedError, StoppedError, UserError
from potstill.hardware.launch import as_rank
rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
def until(name):
    while not (folder / name).exists():
        time.sleep(0.01)
"""
WAITS = """
with as_rank():
    (folder / f"pid{rank}").write_text(str(os.getpid()))
    time.sleep(60)
"""
COUNTS_SIGNALS = """
with as_rank():
    came = []
    signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    (folder / f"pid{rank}").write_text(str(os.getpid()))
    while not came:
        time.sleep(0.01)
    time.sleep(0.3)
    (folder / f"signals{rank}").write_text(str(len(came)))
    raise KeyboardInterrupt
"""
SIGNAL_FREE = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched through /proc")


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The command of a rank with the given body; what a hanging one costs is cut short."""
    monkeypatch.setattr(module, "GRACE_S", 0.5)

    def command(body: str) -> list[str]:
        (tmp_path / "rank.py").write_text(PREAMBLE + textwrap.dedent(body))
        return [sys.executable, str(tmp_path / "rank.py"), str(tmp_path)]

    return command


def pids(folder: Path, num_ranks: int = 2) -> list[int]:
    """Of ranks that write them, once all have."""
    files = [folder / f"pid{rank}" for rank in range(num_ranks)]
    wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    return [int(file.read_text()) for file in files]


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_every_rank_is_told_its_place_and_all_end_well(ranks: Callable[..., list[str]], tmp_path: Path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    body = f"""
    with as_rank():
        (folder / f"place{{rank}}").write_text(" ".join(os.environ[name] for name in {names}))
    """
    launch(3, ranks(body))
    places = [(tmp_path / f"place{rank}").read_text().split() for rank in range(3)]
    assert [place[:4] for place in places] == [[str(rank), str(rank), "3", "3"] for rank in range(3)]
    assert len({tuple(place[4:]) for place in places}) == 1


def test_a_user_error_comes_back_with_its_fields(ranks: Callable[..., list[str]]) -> None:
    body = """
    with as_rank():
        if rank == 1:
            raise UserError("data.batch_size", [1, 2], "is no number.", "Give one.")
        until("never")
    """
    before = time.monotonic()
    with pytest.raises(UserError) as caught:
        launch(2, ranks(body))
    error = caught.value
    assert (error.key, error.value, error.problem, error.fix) == (
        "data.batch_size",
        [1, 2],
        "is no number.",
        "Give one.",
    )
    assert time.monotonic() - before < 20, "the other rank was waited for"


@pytest.mark.parametrize("kind", ["StoppedError", "DivergedError"])
def test_what_stopped_a_rank_is_told_with_its_notes(ranks: Callable[..., list[str]], kind: str) -> None:
    body = f"""
    with as_rank():
        error = {kind}("the disk is full")
        error.add_note("what was saved is kept")
        raise error
    """
    with pytest.raises(StoppedError) as caught:
        launch(2, ranks(body))
    assert str(caught.value) == "the disk is full\nwhat was saved is kept"


def test_a_bug_in_a_rank_keeps_its_traceback(ranks: Callable[..., list[str]]) -> None:
    body = """
    def inner():
        return {}["key that is not there"]
    with as_rank():
        inner() if rank == 1 else until("never")
    """
    with pytest.raises(StoppedError) as caught:
        launch(2, ranks(body))
    message = str(caught.value)
    assert message.startswith("Rank 1 failed:\nTraceback")
    assert "in inner" in message
    assert "KeyError: 'key that is not there'" in message


def test_a_rank_that_leaves_without_a_word_is_named_with_its_exit_code(ranks: Callable[..., list[str]]) -> None:
    with pytest.raises(StoppedError, match="Rank 1 left with exit code 7"):
        launch(2, ranks("os._exit(7 if rank == 1 else 0)"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_rank_that_was_killed_is_named(ranks: Callable[..., list[str]], number: signal.Signals) -> None:
    body = f"""
    with as_rank():
        os.kill(os.getpid(), {int(number)}) if rank == 1 else until("never")
    """
    with pytest.raises(StoppedError, match=f"Rank 1 was killed by {number.name}"):
        launch(2, ranks(body))


def test_the_other_ranks_have_time_to_save_before_they_are_ended(
    ranks: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 20.0)
    body = """
    with as_rank():
        if rank == 1:
            raise StoppedError("no space")
        time.sleep(0.5)
        (folder / "saved").touch()
    """
    with pytest.raises(StoppedError, match="no space"):
        launch(2, ranks(body))
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_reaches_every_rank_once_and_interrupts_the_caller(
    ranks: Callable[..., list[str]], tmp_path: Path, number: signal.Signals
) -> None:
    def kill() -> None:
        pids(tmp_path)
        os.kill(os.getpid(), number)

    command = ranks(COUNTS_SIGNALS)
    threading.Thread(target=kill).start()
    with pytest.raises(KeyboardInterrupt):
        launch(2, command)
    assert [(tmp_path / f"signals{rank}").read_text() for rank in (0, 1)] == ["1", "1"]


def test_a_signal_before_a_rank_can_answer_interrupts_too(ranks: Callable[..., list[str]], tmp_path: Path) -> None:
    def kill() -> None:
        pids(tmp_path)
        os.kill(os.getpid(), signal.SIGTERM)

    still_importing = """
    (folder / f"pid{rank}").write_text(str(os.getpid()))
    time.sleep(60)
    """
    command = ranks(still_importing)
    threading.Thread(target=kill).start()
    with pytest.raises(KeyboardInterrupt):
        launch(2, command)


@pytest.mark.parametrize("body", ["pass", "sys.exit(1)"])
def test_handlers_are_those_from_before(ranks: Callable[..., list[str]], body: str) -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    try:
        launch(2, ranks(body))
    except StoppedError:
        assert body != "pass"
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_a_signal_that_is_ignored_stays_so(ranks: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """nohup has SIGHUP ignored: the end of a login must not end the training."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    monkeypatch.setattr("potstill.hardware.launch._wait", lambda _: os.kill(os.getpid(), signal.SIGHUP))
    try:
        launch(1, ranks("pass"))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@SIGNAL_FREE
def test_a_rank_that_cannot_be_started_leaves_none_behind(
    ranks: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def only_one(*args: object, **options: object) -> subprocess.Popen:
        monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: (_ for _ in ()).throw(OSError("no more processes")))
        return start(*args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", only_one)
    began = ranks('(folder / f"pid{rank}").write_text(str(os.getpid()))\ntime.sleep(60)')
    with pytest.raises(OSError, match="no more processes"):
        launch(2, began)
    time.sleep(0.5)
    file = tmp_path / "pid0"
    assert not file.exists() or not is_alive(int(file.read_text()))


@SIGNAL_FREE
@pytest.mark.parametrize("body", [WAITS, f"time.sleep(1.0){WAITS}"], ids=["in its work", "still importing"])
def test_ranks_do_not_outlive_a_launcher_that_was_killed(
    ranks: Callable[..., list[str]], tmp_path: Path, body: str
) -> None:
    announce = 'open(f"{sys.argv[1]}/pid" + os.environ["RANK"], "w").write(str(os.getpid()))\n'
    command = ranks(announce + body)
    program = f"from potstill.hardware.launch import launch; launch(2, {command!r})"
    launcher = subprocess.Popen([sys.executable, "-c", program])
    found = pids(tmp_path)
    if body == WAITS:
        time.sleep(0.3)
    assert all(is_alive(pid) for pid in found)
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in found))
