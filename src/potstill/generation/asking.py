"""Everything a run needs asked, of a teacher, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from potstill.generation.budget import Amount, Budget, Prices
from potstill.generation.engine import Engine
from potstill.generation.ledger import KEYS_A_QUERY, Ledger
from potstill.generation.limiter import Limiter
from potstill.generation.plan import Plan
from potstill.generation.probe import probe
from potstill.generation.progress import Progress
from potstill.generation.protocol import Request, TextTeacher

LIMITS_OF_RATE = ("start", "maximum", "latency_tolerance", "breaker_failures", "longest_wait_s", "give_up_s")


async def ask_all(
    options: Any,
    teacher: TextTeacher,
    plan: Plan,
    ledger: Ledger,
    verdicts: Callable[[], Iterator[Request]] | None = None,
) -> None:
    """options: the attributes of `GenerateConfig`. verdicts: what to ask once all else is answered."""
    budget, limiter = budget_of(options), limiter_of(options)
    progress = Progress(ledger.path.parent, budget, limiter, options.report_every_s)
    engine = Engine(teacher, ledger, budget, limiter, options.limits, progress)
    state = "stopped"
    try:
        _take_stock(engine, plan.requests(), options.limits.retry_refused)
        progress.begin()
        await probe(engine, plan)
        await engine.run(_missing(engine, plan.requests()))
        if verdicts:
            _take_stock(engine, verdicts(), options.limits.retry_refused)
            await engine.run(_missing(engine, verdicts()))
        state = "finished"
    finally:
        progress.end(state)
        await teacher.close()


def budget_of(options: Any) -> Budget:
    price = options.teacher.price
    return Budget(Prices(price.input_per_million, price.output_per_million), **asdict(options.budget))


def limiter_of(options: Any) -> Limiter:
    return Limiter(**{name: getattr(options.limits, name) for name in LIMITS_OF_RATE})


def _take_stock(engine: Engine, requests: Iterable[Request], retry_refused: bool) -> None:
    """How many there are, how many of them need no call, and what all of them have cost so far."""
    ends = ("done",) if retry_refused else ("done", "refused")
    engine.ends = ends
    for together in _groups(requests):
        entries = engine.ledger.entries([request.key for request in together])
        for entry in entries.values():
            engine.budget.spent.add(Amount(entry.calls, entry.tokens, entry.money))
        engine.progress.total += len(together)
        engine.progress.cached += sum(entry.state in ends for entry in entries.values())


def _missing(engine: Engine, requests: Iterable[Request]) -> Iterator[Request]:
    for together in _groups(requests):
        entries = engine.ledger.entries([request.key for request in together])
        for request in together:
            if request.key not in entries or entries[request.key].state not in engine.ends:
                yield request


def _groups(requests: Iterable[Request]) -> Iterator[list[Request]]:
    remaining = iter(requests)
    while together := list(islice(remaining, KEYS_A_QUERY)):
        yield together
