"""How many requests are in flight: found out by asking, and given up when nothing is answered any more."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field

from potstill.errors import StoppedError
from potstill.generation.waits import full_jitter

CUT = 0.5
SMALLEST_WINDOW = 8  # replies, of which a median is compared
OVERHEAD_TOKENS = 16  # what the fixed part of a call is worth; without it a short answer looks slow


@dataclass
class Limiter:
    """Slow start, one cut per episode, pauses for all, latency as a signal, and a circuit breaker.

    start, maximum: requests in flight. latency_tolerance: a server that queues answers later the more it is asked; no
    growth beyond so many times the latency it began with, and a cut beyond twice that. breaker_failures: failures in a
    row after which one request at a time is tried. longest_wait_s: between tries. give_up_s: without a single answer.
    """

    start: int
    maximum: int
    latency_tolerance: float
    breaker_failures: int
    longest_wait_s: float
    give_up_s: float

    limit: float = 0.0
    in_flight: int = 0
    is_growing_fast: bool = True
    failures_in_a_row: int = 0
    failing_since: float | None = None
    _last_cut: float = 0.0
    _paused_until: float = 0.0
    _rates_in_a_row: int = 0
    _latencies: list[float] = field(default_factory=list)
    _window: int = SMALLEST_WINDOW  # one that followed the limit would not be full before the limit is the largest
    _baseline: float | None = None

    def __post_init__(self) -> None:
        self.limit = float(min(self.start, self.maximum))
        self._changed = asyncio.Event()

    async def acquire(self) -> float:
        """Wait for a place; returns when it was given. `release` it."""
        while True:
            if (wait := self._paused_until - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            elif self.in_flight < max(1, int(self.limit)):
                self.in_flight += 1
                return time.monotonic()
            else:
                self._changed.clear()
                await self._changed.wait()

    def release(self) -> None:
        self.in_flight -= 1
        self._changed.set()

    def answered(self, sent_at: float, num_tokens: int) -> None:
        """By the endpoint, whatever it said of the request itself."""
        self._alive()
        self._latencies.append((time.monotonic() - sent_at) / (num_tokens + OVERHEAD_TOKENS))
        if self.is_growing_fast:
            self._grow(1.0)
        else:
            self._grow(1.0 / self.limit)
        if len(self._latencies) >= self._window:
            self._compare_latencies()

    def refused(self, sent_at: float, asked_wait_s: float | None, reason: str) -> None:
        """For the rate. All wait, not only the one that was told."""
        wait = asked_wait_s
        if wait is None:
            wait = full_jitter(self._rates_in_a_row, 1.0, self.longest_wait_s)
        if self._cut(sent_at):  # of those sent before the cut, one counts
            self._rates_in_a_row += 1
        self._pause(wait)
        self._give_up_or_go_on(reason, wait)

    def failed(self, sent_at: float, reason: str) -> None:
        """A failure that may be the endpoint's, not the request's."""
        self.failures_in_a_row += 1
        if self.failures_in_a_row >= self.breaker_failures:
            self.limit, self.is_growing_fast = 1.0, True
            self._last_cut = time.monotonic()
            self._pause(full_jitter(self.failures_in_a_row - self.breaker_failures, 0.5, self.longest_wait_s))
        elif self.failures_in_a_row > 1:
            self._cut(sent_at)
        self._give_up_or_go_on(reason, 0.0)

    @property
    def is_open(self) -> bool:
        """Whether the breaker lets one request at a time through only."""
        return self.failures_in_a_row >= self.breaker_failures

    def _alive(self) -> None:
        self.failures_in_a_row, self._rates_in_a_row, self.failing_since = 0, 0, None

    def _grow(self, by: float) -> None:
        if self.in_flight >= int(self.limit) - 1:  # a limit that is not reached says nothing
            self.limit = min(float(self.maximum), self.limit + by)
            self._changed.set()

    def _cut(self, sent_at: float) -> bool:
        if sent_at < self._last_cut:
            return False
        self.limit = max(1.0, self.limit * CUT)
        self.is_growing_fast = False
        self._last_cut = time.monotonic()
        return True

    def _compare_latencies(self) -> None:
        median, self._latencies = statistics.median(self._latencies), []
        self._baseline = median if self._baseline is None else min(self._baseline, median)
        slower = median / self._baseline if self._baseline else 1.0
        if slower > self.latency_tolerance:
            self.is_growing_fast = False
            self.limit = max(1.0, self.limit * max(CUT, self.latency_tolerance / slower))
            self._last_cut = time.monotonic()
        self._window = max(SMALLEST_WINDOW, int(self.limit))

    def _pause(self, wait_s: float) -> None:
        self._paused_until = max(self._paused_until, time.monotonic() + wait_s)

    def _give_up_or_go_on(self, reason: str, wait_s: float) -> None:
        now = time.monotonic()
        self.failing_since = now if self.failing_since is None else self.failing_since
        if now - self.failing_since >= self.give_up_s or wait_s > self.give_up_s:
            waits = f" It asks to wait {wait_s:.0f} s." if wait_s > self.give_up_s else ""
            raise StoppedError(
                f"The endpoint has given no answer for {now - self.failing_since:.0f} s (limits.give_up_s="
                f"{self.give_up_s:g}).{waits} Last: {reason}\n"
                "Every answer so far is kept. Run the same command again, later: it goes on with what is missing."
            )
