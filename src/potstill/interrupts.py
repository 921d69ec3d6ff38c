"""SIGTERM as a Ctrl-C: what schedulers send ends a command as a user would, with its files closed."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt; only the main thread may, and needs to, say so."""
    if not _is_main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_interruptible(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run`, in which SIGTERM cancels `main` as SIGINT does, and KeyboardInterrupt follows once it has ended.

    Raised at once, it would come out of some callback of the loop, and leave open what `main` has opened.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        asyncio.run(_cancelled_by_sigterm(main))
    except asyncio.CancelledError as error:
        raise KeyboardInterrupt from error
    finally:
        if _is_main_thread():
            signal.signal(signal.SIGTERM, before)  # a loop that closes leaves the system's own


async def _cancelled_by_sigterm(main: Coroutine[Any, Any, None]) -> None:
    task = asyncio.current_task()
    assert task
    if _is_main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await main


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
