"""What may be spent, set aside before a request is sent."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from potstill.errors import StoppedError
from potstill.generation.protocol import Request


class SpentError(StoppedError):
    """A cap is reached. What was generated until then is kept, and exported."""


@dataclass
class Amount:
    calls: int = 0
    tokens: int = 0
    money: float = 0.0

    def add(self, other: Amount, sign: int = 1) -> None:
        self.calls += sign * other.calls
        self.tokens += sign * other.tokens
        self.money += sign * other.money


@dataclass
class Prices:
    """Of a million tokens; None: not said."""

    input_per_million: float | None = None
    output_per_million: float | None = None

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        money = (self.input_per_million or 0.0) * prompt_tokens + (self.output_per_million or 0.0) * completion_tokens
        return money / 1e6


@dataclass
class Budget:
    """Caps on all that the rows of this run have cost, earlier starts included. None: no cap.

    spent: what is known, with what may have been paid for without an answer. reserved: the most that is in flight.
    """

    prices: Prices
    calls: int | None = None
    tokens: int | None = None
    money: float | None = None
    spent: Amount = field(default_factory=Amount)
    reserved: Amount = field(default_factory=Amount)

    def __post_init__(self) -> None:
        self._changed = asyncio.Event()

    def most(self, request: Request) -> Amount:
        prompt = request.max_prompt_tokens
        money = self.prices.of(prompt, request.max_tokens - prompt)
        return Amount(1, request.max_tokens, money)

    async def reserve(self, request: Request) -> Amount:
        """Set aside the most it can cost; waits for what is in flight where that could make room. Raises SpentError."""
        most = self.most(request)
        while key := self._exceeded_by(most):
            if not self.reserved.calls:
                raise self._reached(key)
            self._changed.clear()
            await self._changed.wait()
        self.reserved.add(most)
        return most

    def settle(self, most: Amount, actual: Amount) -> None:
        self.reserved.add(most, -1)
        self.spent.add(actual)
        self._changed.set()

    def _exceeded_by(self, most: Amount) -> str | None:
        for key in ("calls", "tokens", "money"):
            cap, total = getattr(self, key), sum(getattr(each, key) for each in (self.spent, self.reserved, most))
            if cap is not None and total > cap * (1 + 1e-9):  # sums of floats
                return key
        return None

    def _reached(self, key: str) -> SpentError:
        return SpentError(
            f"budget.{key}={getattr(self, key):g} is reached: {getattr(self.spent, key):g} spent, and the next request "
            "may go beyond it.\nWhat is there is exported. To go on, raise the cap and run the command again: nothing "
            "is paid for twice."
        )
