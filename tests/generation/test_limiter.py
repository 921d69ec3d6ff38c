from __future__ import annotations

import asyncio
import time

import pytest

from potstill.errors import StoppedError
from potstill.generation.limiter import Limiter


def limiter(**changes: float) -> Limiter:
    given = {"start": 4, "maximum": 64, "latency_tolerance": 2.0, "breaker_failures": 3, "longest_wait_s": 0.05}
    return Limiter(**{**given, "give_up_s": 100.0, **changes})  # type: ignore[arg-type]


def busy(made: Limiter, limit: float) -> Limiter:
    made.limit, made.in_flight = limit, int(limit)
    return made


def test_the_limit_doubles_until_the_first_cut_and_then_grows_by_one_a_round():
    made = busy(limiter(), 8)
    for _ in range(8):
        made.answered(time.monotonic(), 10**9)  # so many tokens that latency says nothing
        made.in_flight = int(made.limit)
    assert made.limit == 16
    made.refused(time.monotonic(), 0.0, "429")
    before = made.limit
    for _ in range(int(before)):
        made.answered(time.monotonic(), 10**9)
        made.in_flight = int(made.limit)
    assert before + 0.9 < made.limit < before + 1.1


def test_one_episode_of_refusals_cuts_once():
    made = busy(limiter(), 32)
    sent_at = time.monotonic()
    for _ in range(20):  # all sent before the first refusal came back
        made.refused(sent_at, 0.0, "429")
    assert made.limit == 16
    made.refused(time.monotonic(), 0.0, "429")
    assert made.limit == 8


def test_a_limit_that_is_not_reached_does_not_grow():
    made = limiter()
    made.answered(time.monotonic(), 1)
    assert made.limit == 4


def test_a_server_that_queues_is_not_asked_for_more():
    made = busy(limiter(), 4)
    for latency in [0.1] * 8 + [0.5] * 16:
        made.in_flight = int(made.limit)
        made.answered(time.monotonic() - latency, 0)
    assert made.limit < 13
    assert not made.is_growing_fast


def test_everybody_waits_as_long_as_the_server_asks():
    async def waited() -> float:
        made = limiter()
        made.refused(time.monotonic(), 0.2, "429")
        began = time.monotonic()
        await asyncio.gather(made.acquire(), made.acquire())
        return time.monotonic() - began

    assert asyncio.run(waited()) >= 0.19


def test_the_breaker_lets_one_request_at_a_time_through_until_an_answer():
    made = busy(limiter(), 32)
    for _ in range(3):
        made.failed(time.monotonic(), "500")
    assert (made.is_open, made.limit) == (True, 1.0)
    made.answered(time.monotonic(), 1)
    assert not made.is_open


@pytest.mark.parametrize("how", ["refused", "failed"])
def test_an_endpoint_that_never_answers_is_given_up(how):
    made = limiter(give_up_s=0.05)
    tell = (
        (lambda: made.refused(time.monotonic(), 0.0, "429"))
        if how == "refused"
        else (lambda: made.failed(time.monotonic(), "500"))
    )
    tell()
    time.sleep(0.06)
    with pytest.raises(StoppedError, match=r"no answer for .*Last: .*\n.*Run the same command again"):
        tell()


def test_a_wait_beyond_patience_is_not_begun():
    with pytest.raises(StoppedError, match="It asks to wait 500 s"):
        limiter(give_up_s=10.0).refused(time.monotonic(), 500.0, "429")
