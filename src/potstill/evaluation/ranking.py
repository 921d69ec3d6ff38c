"""What is better, and what of an `evaluation.json` a reader should see first."""

from __future__ import annotations

from typing import Any

from potstill.evaluation.generation import MEASURES

# from 0 to 1, the more the better
SHARES = frozenset(
    {
        "accuracy",
        "macro_f1",
        "ndcg_at_10",
        "recall_at_10",
        "accuracy_at_1",
        "exact_match",
        "numeric_match",
        "rouge_l",
        "truncated",
        "repetitive",
        "empty",
        "format_valid",
        "agreement",
        "answer_agreement",
        "retention",
        "top5_overlap",
        "copied_errors",
        "ece",
    }
)

# Of a group, what is no single metric.
NO_METRICS = frozenset(
    {
        *("n", "num_labelled", "num_items", "is_too_small", "interval", "num_nonfinite", "calibration", "selective"),
        *("generation", "against_teacher", "retention_interval", "errors", "copied_errors"),
    }
)


def main_model(evaluation: dict[str, Any]) -> str:
    """The student; where none was evaluated, the first model."""
    models = evaluation["models"]
    return "student" if "student" in models else next(iter(models))


def counted(evaluation: dict[str, Any], group: dict[str, Any]) -> int:
    """What the main metric of a group was counted over: rows, or of generated answers the items that have one."""
    is_of_answers = (evaluation.get("generation") or {}).get("metric") is not None
    return group["num_items"] if is_of_answers else group["n"]


def slices_worst_first(evaluation: dict[str, Any], model: str) -> list[str]:
    """Slice names by the main metric of `model`, the worst first; those without a value come last."""
    metric, slices = evaluation["metric"], evaluation["models"][model]["slices"]
    sign = 1 if evaluation["higher_is_better"] else -1

    def rank(name: str) -> tuple[bool, float, str]:
        value = slices[name][metric]
        return value is None, sign * (value or 0.0), name

    return sorted(slices, key=rank)


def numbers(group: dict[str, Any]) -> dict[str, Any]:
    """The metrics of a group, flat: those against gold, of answers, and against the teacher; no interval or count."""
    against = group.get("against_teacher") or {}
    gold = {name: value for name, value in group.items() if name not in NO_METRICS}
    flat = {name: value for name, value in against.items() if name not in NO_METRICS}
    calibration = group.get("calibration")
    if calibration:
        flat["ece"] = calibration["ece"]
    if "copied_errors" in against:
        flat["copied_errors"] = against["copied_errors"]["value"]
    generation = group.get("generation") or {}
    return gold | {name: generation[name] for name in MEASURES if generation.get(name) is not None} | flat


def costs(evaluation: dict[str, Any], model: str) -> dict[str, Any]:
    """Size, and what was measured of its speed."""
    measured = evaluation.get("measured", {}).get("models", {}).get(model, {})
    timed = {name: value for name, value in measured.items() if name != "mixes"}
    found = evaluation["models"][model]
    return {**found.get("size", found.get("cost", {})), **timed}  # cost: all of it, in schema_version 1
