"""Which slices of an `evaluation.json` a reader should see first."""

from __future__ import annotations

from typing import Any


def main_model(evaluation: dict[str, Any]) -> str:
    """The student; where none was evaluated, the first model."""
    models = evaluation["models"]
    return "student" if "student" in models else next(iter(models))


def slices_worst_first(evaluation: dict[str, Any], model: str) -> list[str]:
    """Slice names by the main metric of `model`, the worst first; those without a value come last."""
    metric, slices = evaluation["metric"], evaluation["models"][model]["slices"]
    sign = 1 if evaluation["higher_is_better"] else -1

    def rank(name: str) -> tuple[bool, float, str]:
        value = slices[name][metric]
        return value is None, sign * (value or 0.0), name

    return sorted(slices, key=rank)
