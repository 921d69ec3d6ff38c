"""What is better, and what of an `evaluation.json` a reader should see first."""

from __future__ import annotations

from typing import Any

# from 0 to 1, the more the better
SHARES = frozenset({"accuracy", "macro_f1", "ndcg_at_10", "recall_at_10", "accuracy_at_1", "agreement", "retention"})


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
