"""One parameter of a search space, from Hydra's override grammar."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import (
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Transformer,
)

from hydra_plugins.potstill_optuna._errors import SweepError, nearest_hint

DIGITS = 12  # of a float of a range: its steps add up to 0.30000000000000004


@dataclass(frozen=True)
class Param:
    """A key that a trial gets a value for.

    key: without Hydra's `+`; the parameter's name in the study. prefix: that `+`, if any.
    kind: `float`, `int` or `choice`. bounds: low, high, step (None: continuous) and log of a number.
    texts: of a choice, by value: how the override grammar writes it.
    """

    key: str
    prefix: str
    kind: str
    bounds: dict[str, Any] = field(default_factory=dict)
    texts: dict[Any, str] = field(default_factory=dict)

    def suggest(self, trial: Any) -> Any:
        """The value that `trial`, Optuna's, has or now gets."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.key, list(self.texts))
        suggest = trial.suggest_int if self.kind == "int" else trial.suggest_float
        value = suggest(self.key, **self.bounds)
        return float(f"{value:.{DIGITS}g}") if self.kind == "float" and self.bounds["step"] else value

    def override(self, value: Any) -> str:
        return f"{self.prefix}{self.key}={self.texts[value] if self.kind == 'choice' else value}"

    def labels(self) -> list[str] | None:
        """All that a condition may compare with; None of a number: whatever lies in its bounds."""
        return [label(value) for value in self.texts] if self.kind == "choice" else None

    def values(self) -> Sequence[Any]:
        """Every value, for a grid."""
        if self.kind == "choice":
            return list(self.texts)
        low, high, step = (self.bounds[name] for name in ("low", "high", "step"))
        if step is None:
            problem = "is continuous, and a grid has to end."
            raise SweepError(self.key, self.describe(), problem, "Give choice(...) or range(...), or another sampler.")
        return [float(f"{low + step * n:.{DIGITS}g}") if self.kind == "float" else low + step * n
                for n in range(round((high - low) / step) + 1)]  # fmt: skip

    def accept(self, value: Any, key: str) -> Any:
        """`value`, given by a person, as the study keeps it. Raises SweepError, naming `key`, where it has no place."""
        if self.kind == "choice":
            found = [known for known in self.texts if known == value or label(known) == label(value)]
            if not found:
                raise SweepError(key, value, "is not among the choices.", nearest_hint(str(value), self.texts))
            return found[0]
        low, high, step = (self.bounds[name] for name in ("low", "high", "step"))
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        steps = (value - low) / (step or 1) if is_number else math.nan
        if not is_number or not low <= value <= high or (step and abs(steps - round(steps)) > 1e-6):
            raise SweepError(key, value, "lies outside of what is searched.", f"It is {self.describe()}.")
        return int(value) if self.kind == "int" else float(value)

    def describe(self) -> str:
        if self.kind == "choice":
            return f"choice({', '.join(self.texts.values())})"
        given = [f"{name}={value}" for name, value in self.bounds.items() if value is not None and value is not False]
        return f"{self.kind}({', '.join(given)})"


def label(value: Any) -> str:
    """How a value is written in a condition, `loss=dkd:`."""
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def read_param(override: Override, where: str) -> Param:
    """The parameter that a sweep `override` describes. Raises SweepError, naming `where`."""
    key, sweep, text = bare_key(override), override.value(), override.get_value_string()
    prefix = override.get_key_element().removesuffix(key)
    tags = getattr(sweep, "tags", set())
    if getattr(sweep, "shuffle", False):
        problem = "has no effect: the sampler draws in its own order."
        raise SweepError(where, text, problem, "Leave shuffle(...) out.")
    if unknown := sorted(tags - {"log"}):
        raise SweepError(where, text, f"has the tag {unknown[0]!r}, which says nothing here.", "There is one tag: log.")
    if override.is_choice_sweep():
        if tags:
            raise SweepError(where, text, "is a choice, which has no scale.", "Leave tag(log, ...) out.")
        return Param(key, prefix, "choice", texts=_texts(override, where))
    assert isinstance(sweep, RangeSweep | IntervalSweep)
    kind, bounds = _range(sweep) if isinstance(sweep, RangeSweep) else _interval(sweep)
    _check(bounds | {"log": bool(tags)}, kind, where, text)
    return Param(key, prefix, kind, bounds | {"log": bool(tags)})


def bare_key(override: Override) -> str:
    return override.get_key_element().lstrip("+~")


def _texts(override: Override, where: str) -> dict[Any, str]:
    texts: dict[Any, str] = {}
    elements = list(override.sweep_iterator())
    for element in elements:
        text = Transformer.str(element)
        value = element.text if isinstance(element, QuotedString) else element
        texts[text if isinstance(value, list | dict) else value] = text  # a study keeps plain values only
    if len(texts) < len(elements) or not texts:
        problem = "holds a value twice." if texts else "is empty."
        raise SweepError(where, override.get_value_string(), problem, "Give each value once: choice(a,b).")
    return texts


def _range(sweep: RangeSweep) -> tuple[str, dict[str, Any]]:
    """As Hydra has it: the end is no part of it."""
    values = sweep.range()
    if not isinstance(values, range):
        values = list(values)
    kind = "int" if isinstance(values, range) else "float"
    ends = sorted((values[0], values[-1])) if len(values) else (1, 0)
    return kind, {"low": ends[0], "high": ends[1], "step": abs(sweep.step)}


def _interval(sweep: IntervalSweep) -> tuple[str, dict[str, Any]]:
    is_int = isinstance(sweep.start, int) and isinstance(sweep.end, int)
    return "int" if is_int else "float", {"low": sweep.start, "high": sweep.end, "step": 1 if is_int else None}


def _check(bounds: dict[str, Any], kind: str, where: str, text: str) -> None:
    low, high, step = bounds["low"], bounds["high"], bounds["step"]
    if not low <= high:
        raise SweepError(where, text, "is empty.", "Give the lower end first, as in interval(1,8).")
    if bounds["log"] and not low > 0:
        raise SweepError(where, text, "has no logarithm at its lower end.", "Begin above zero.")
    if bounds["log"] and step not in (None, 1):
        problem = "has a logarithmic scale and a step; Optuna takes one of them."
        raise SweepError(
            where, text, problem, f"Write tag(log, {'int(interval' if kind == 'int' else 'interval'}(...)."
        )
