"""Every request asked once, however often that takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from potstill.errors import StoppedError
from potstill.generation import classify
from potstill.generation.budget import Amount, Budget
from potstill.generation.ledger import Ledger, Settlement
from potstill.generation.limiter import Limiter
from potstill.generation.parse import usage_of
from potstill.generation.progress import Progress
from potstill.generation.protocol import BrokenError, Reply, Request, TextTeacher, UnreachableError
from potstill.generation.waits import asked_wait_s, full_jitter

UNREACHABLE = "unreachable"  # nothing was sent; a kind of its own beside those of `classify`
MAX_RAW_BYTES = 65536  # of a failure that is kept to be looked at


@dataclass
class Engine:
    """limits: the attributes of `LimitsConfig`."""

    teacher: TextTeacher
    ledger: Ledger
    budget: Budget
    limiter: Limiter
    limits: Any
    progress: Progress
    ends: tuple[str, ...] = ("done", "refused")  # states in which nothing is asked again

    async def run(self, requests: Iterator[Request]) -> None:
        """Raises StoppedError where a person, money or time is needed; what was answered until then is kept."""
        workers = [asyncio.create_task(self._work(requests)) for _ in range(self.limiter.maximum)]
        try:
            async with asyncio.timeout(self.limits.run_s):
                await asyncio.gather(*workers)
        except TimeoutError as error:
            raise StoppedError(
                f"limits.run_s={self.limits.run_s:g} is over.\n"
                "Every answer so far is kept. Run the same command again: it goes on with what is missing."
            ) from error
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def ask(self, request: Request) -> str:
        """Until it is answered, refused or out of attempts; returns which: `done`, `refused` or `failed`."""
        attempts, began = 0, time.monotonic()
        while True:
            kind, reason = await self._send(request, attempts)
            if kind == classify.ANSWER:
                return "done"
            self.progress.failure(kind)
            if kind == classify.NEVER:
                return "refused"
            if kind == classify.PERSON:
                raise StoppedError(self._ask_a_person(reason))
            attempts += kind == classify.TRANSIENT
            late = self.limits.row_s is not None and time.monotonic() - began > self.limits.row_s
            if attempts >= self.limits.attempts or late:
                why = f"{attempts} attempts, the last: {reason}" if not late else f"limits.row_s is over: {reason}"
                await self.ledger.settle(request, Settlement("failed", reason=why, attempts=attempts))
                self.progress.failure("gone")
                return "failed"
            if kind == classify.TRANSIENT:
                await asyncio.sleep(full_jitter(attempts, self.limits.first_wait_s, self.limits.longest_wait_s))

    async def _work(self, requests: Iterator[Request]) -> None:
        for request in requests:
            await self.ask(request)

    async def _send(self, request: Request, attempts: int) -> tuple[str, str]:
        """Once: on record before, and after. Returns its class and the reason."""
        await self.limiter.acquire()
        try:
            most = await self.budget.reserve(request)
            actual = most  # whatever goes wrong from here, it may have been paid for
            try:
                await self.ledger.mark(request, most.tokens, most.money)
                sent_at = time.monotonic()
                kind, reason, reply = await self._reply(request)
                actual = self._cost(most, kind, reply)
                await self._record(request, kind, reason, reply, actual, attempts)
            finally:
                self.budget.settle(most, actual)
            self._tell_limiter(kind, reason, sent_at, reply, actual)
        finally:
            self.limiter.release()
        return kind, reason

    async def _reply(self, request: Request) -> tuple[str, str, Reply | None]:
        try:
            async with asyncio.timeout(self.limits.request_s):
                reply = await self.teacher.send(request.body)
        except UnreachableError as error:
            return UNREACHABLE, str(error), None
        except BrokenError as error:
            return classify.TRANSIENT, str(error), None
        except TimeoutError:
            return classify.TRANSIENT, f"no reply within limits.request_s={self.limits.request_s:g}", None
        return *classify.classify(reply), reply

    def _cost(self, most: Amount, kind: str, reply: Reply | None) -> Amount:
        """What it cost; the most it can where nobody says. A request that was refused unheard is free."""
        if kind in (UNREACHABLE, classify.RATE, classify.NEVER, classify.PERSON):
            return Amount(calls=0 if kind in (UNREACHABLE, classify.RATE) else 1)
        usage = usage_of(reply.raw) if reply and kind == classify.ANSWER else None
        if usage is None:
            return most
        money = self.budget.prices.of(usage.prompt_tokens, usage.completion_tokens)
        return Amount(1, usage.prompt_tokens + usage.completion_tokens, money)

    async def _record(
        self, request: Request, kind: str, reason: str, reply: Reply | None, actual: Amount, attempts: int
    ) -> None:
        state = {classify.ANSWER: "done", classify.NEVER: "refused"}.get(kind, "waiting")
        status, raw = (reply.status, reply.raw) if reply else (None, None)
        attempts += kind not in (UNREACHABLE, classify.RATE)
        kept = raw if state == "done" else None
        spent = {"tokens": actual.tokens, "money": actual.money, "free": not actual.calls}
        end = Settlement(state, status, kept, reason or None, attempts, **spent)
        if kind not in (classify.ANSWER, UNREACHABLE, classify.RATE):  # a storm of those would be most of the file
            await self.ledger.note(request, kind, status, raw[:MAX_RAW_BYTES] if raw else None, reason)
        await self.ledger.settle(request, end)
        if state == "done":
            self.progress.answered(actual.tokens)

    def _tell_limiter(self, kind: str, reason: str, sent_at: float, reply: Reply | None, actual: Amount) -> None:
        if kind == classify.RATE:
            assert reply
            wait = asked_wait_s(reply.headers, reply.raw.decode("utf-8", "replace"))
            self.limiter.refused(sent_at, wait, reason)
        elif kind in (classify.TRANSIENT, UNREACHABLE):
            self.limiter.failed(sent_at, reason)
        else:
            self.limiter.answered(sent_at, actual.tokens)

    def _ask_a_person(self, reason: str) -> str:
        return (
            f"{self.teacher.name} does not take requests: {reason}\n"
            "That needs somebody: check the key, the address, teacher.model and the account. Every answer so far is "
            "kept; then run the same command again."
        )
