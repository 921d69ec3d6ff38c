from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest

from potstill.generation.waits import LONGEST_S, asked_wait_s, full_jitter

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
LATER = datetime(2026, 1, 31, 12, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "text", "expected"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after": "0.5"}, "", 0.5),
        ({"retry-after": format_datetime(LATER, usegmt=True)}, "", 30.0),
        ({"retry-after": "-3"}, "", 0.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, "", 0.25),
        ({"retry-after": "999999"}, "", LONGEST_S),
        ({"x-ratelimit-reset-requests": "6m1s"}, "", 361.0),
        ({"x-ratelimit-reset-tokens": "20ms", "x-ratelimit-remaining-tokens": "0"}, "", 0.02),
        ({"x-ratelimit-reset-tokens": "1h", "x-ratelimit-remaining-tokens": "9"}, "", None),
        ({"x-ratelimit-reset": str(LATER.timestamp())}, "", 30.0),
        ({}, "Rate limit reached. Please try again in 1.5s.", 1.5),
        ({}, "try again in 20 milliseconds", 0.02),
        ({}, "Please retry after 2 minutes", 120.0),
        ({"retry-after": "soon"}, "", None),
        ({}, "too many requests", None),
    ],
)
def test_what_a_server_asks_to_wait_is_understood_in_every_form(headers, text, expected):
    found = asked_wait_s(headers, text, NOW)
    assert found == (expected if expected is None else pytest.approx(expected))


def test_waits_grow_to_a_bound_and_are_spread_from_zero():
    waits = [full_jitter(10, 1.0, 8.0) for _ in range(200)]
    assert max(waits) <= 8.0
    assert min(waits) < 2.0
    assert max(full_jitter(0, 1.0, 8.0) for _ in range(200)) <= 1.0
