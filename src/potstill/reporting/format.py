"""How the values of `evaluation.json` are written for people."""

from __future__ import annotations

from collections.abc import Callable

from potstill.evaluation.ranking import SHARES

MISSING = "-"


def format_value(name: str, value: float | None) -> str:
    """A metric or cost with its unit; `-` where there was nothing to measure."""
    if value is None:
        return MISSING
    if name in SHARES:
        return f"{100 * value:.1f} %"
    return _FORMATS.get(name, "{:.3f}".format)(value)


def format_difference(name: str, value: float | None) -> str:
    """Like `format_value`, signed and without its unit."""
    if value is None:
        return MISSING
    return f"{100 * value:+.1f}" if name in SHARES else f"{value:+.3f}"


def difference_unit(name: str) -> str:
    """What follows the number of `format_difference`: shares differ by percentage points."""
    return " points" if name in SHARES else ""


def _bytes(value: float) -> str:
    for unit in ("kB", "MB"):
        value /= 1000
        if value < 1000:
            return f"{value:,.1f} {unit}"
    return f"{value / 1000:,.2f} GB"


_FORMATS: dict[str, Callable[[float], str]] = {
    "n": "{:,}".format,
    "parameters": "{:,}".format,
    "flops": lambda value: f"{value / 1e9:,.3g} G",
    "model_bytes": _bytes,
    "latency_ms_p50": "{:.2f} ms".format,
    "latency_ms_p95": "{:.2f} ms".format,
    "latency_ms_p99": "{:.2f} ms".format,
}
