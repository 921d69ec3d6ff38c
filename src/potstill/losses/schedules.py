"""Options of terms that change while a model trains: each value a function of the optimizer step alone.

No counter: a run that goes on, another rank and the next micro-batch find the same value at the same step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from potstill.errors import UserError, nearest_hint

SCHEDULES = ("constant", "linear", "cosine", "warm_up")
SCHEDULED = ("weight", "temperature", "teacher_temperature", "reversal")  # what the module sets before every step
KEYS = ("schedule", "start", "end", "steps")


@dataclass(frozen=True)
class Schedule:
    """From `start` to `end` over `steps` optimizer steps (None: the whole run), and `end` from then on.

    linear: along a line. cosine: along half a cosine, slow at both ends. warm_up: a line that begins at 0, so that it
    has no `start`. constant: `start` throughout.
    """

    schedule: str
    start: float
    end: float
    steps: int | None

    def at(self, step: int, num_steps: int) -> float:
        """The value that step number `step` (the first is 0) of a run of `num_steps` trains with."""
        passed = min(1.0, step / (self.steps or num_steps))
        if self.schedule == "cosine":
            passed = (1.0 - math.cos(math.pi * passed)) / 2.0
        return self.start + (self.end - self.start) * passed


def without_schedules(node: Mapping[str, Any], key: str) -> tuple[dict[str, Any], dict[str, Schedule]]:
    """A term's options with the first value of each schedule in its place, and the schedules by option.

    key: where the node stands in the config. Raises UserError for what is no schedule.
    """
    schedules = {
        name: _schedule(value, f"{key}.{name}")
        for name, value in node.items()
        if name in SCHEDULED and isinstance(value, Mapping)
    }
    return {**node, **{name: each.start for name, each in schedules.items()}}, schedules


def _schedule(node: Mapping[str, Any], key: str) -> Schedule:
    for name, value in node.items():
        if name not in KEYS:
            raise UserError(f"{key}.{name}", value, "is no key of a schedule.", nearest_hint(name, KEYS))
    name = node.get("schedule")
    if name not in SCHEDULES:
        raise UserError(f"{key}.schedule", name, "is no schedule.", nearest_hint(str(name), SCHEDULES))
    if name == "warm_up" and node.get("start") is not None:
        problem = "would have no effect: a warm-up begins at 0."
        raise UserError(f"{key}.start", node["start"], problem, f"Write {key}.schedule=linear.")
    if name == "constant" and any(node.get(each) is not None for each in ("end", "steps")):
        problem = "is constant, but has an end or steps, which would have no effect."
        raise UserError(key, dict(node), problem, f"Write {key}=NUMBER, or {key}.schedule=linear.")
    start = 0.0 if name == "warm_up" else _number(node, "start", key)
    end = start if name == "constant" else _number(node, "end", key)
    return Schedule(name, start, end, _steps(node, key))


def _number(node: Mapping[str, Any], name: str, key: str) -> float:
    value = node.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{key}.{name}", value, "is not a number.", f"For example: {key}.{name}=1.0")
    return float(value)


def _steps(node: Mapping[str, Any], key: str) -> int | None:
    steps = node.get("steps")
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        problem = "is no number of optimizer steps."
        raise UserError(f"{key}.steps", steps, problem, f"For the whole run: {key}.steps=null")
    return steps
