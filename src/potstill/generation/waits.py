"""How long to wait before a request is sent again."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_S = 3600.0  # a server that says more is not waited for: the run gives up first

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_IN_WORDS = re.compile(r"(?:try again|retry)\s+(?:in|after)\s+(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|sec\w*|m|min\w*)\b")


def full_jitter(attempt: int, base_s: float, longest_s: float) -> float:
    """Anywhere between now and the exponential wait, so that many clients do not come back together."""
    return random.uniform(0.0, min(longest_s, base_s * 2.0**attempt))


def asked_wait_s(headers: Mapping[str, str], text: str, now: datetime | None = None) -> float | None:
    """What the server asks to wait, in whichever form: `retry-after-ms`, `retry-after` as seconds or a date, the resets
    of rate limits (durations, seconds, or a time since 1970), or a sentence of the error. None: it says nothing."""
    now = now or datetime.now(UTC)
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return _bounded(milliseconds / 1000)
    if "retry-after" in headers:
        wait = _seconds_or_date(headers["retry-after"], now)
        if wait is not None:
            return _bounded(wait)
    resets = [_reset(value, now) for name, value in headers.items() if _is_exhausted(name, headers)]
    if found := [wait for wait in resets if wait is not None]:
        return _bounded(max(found))
    if words := _IN_WORDS.search(text.lower()):
        unit = "ms" if words[2].startswith("mil") or words[2] == "ms" else words[2][0]
        return _bounded(float(words[1]) * _UNITS[unit])
    return None


def _is_exhausted(name: str, headers: Mapping[str, str]) -> bool:
    """`x-ratelimit-reset-tokens`, where nothing remains of that limit or it does not say."""
    if "ratelimit" not in name or "reset" not in name:
        return False
    remaining = _number(headers.get(name.replace("reset", "remaining")))
    return remaining is None or remaining <= 0


def _reset(value: str, now: datetime) -> float | None:
    seconds = _seconds_or_date(value, now)
    if seconds is not None and seconds > 1e9:  # a time since 1970
        return seconds - now.timestamp()
    return seconds


def _seconds_or_date(value: str, now: datetime) -> float | None:
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        at = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return _duration(value)
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()


def _duration(value: str) -> float | None:
    """`6m0s`, `1.5s`, `20ms`."""
    parts = _DURATION.findall(value.strip())
    if not parts or "".join(number + unit for number, unit in parts) != value.strip():
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _number(value: str | None) -> float | None:
    try:
        return float(value) if value is not None else None
    except ValueError:
        return None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_S)
