from __future__ import annotations

import asyncio
import os
import signal

import pytest

from potstill.interrupts import run_interruptible, sigterm_interrupts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_comes_out_where_a_coroutine_waits_and_not_in_the_middle_of_what_it_does(number):
    seen: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            seen.append("went on")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("closed")
            raise

    with sigterm_interrupts():
        with pytest.raises(KeyboardInterrupt):
            run_interruptible(work())
        assert seen == ["went on", "closed"]
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler, "what comes after is interrupted, too"


def test_without_a_signal_it_ends_as_it_would():
    async def fail() -> None:
        raise ValueError("its own")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="its own"):
        run_interruptible(fail())
    assert signal.getsignal(signal.SIGTERM) == before
