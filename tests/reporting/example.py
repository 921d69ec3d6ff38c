"""An evaluation as `potstill.evaluation.evaluate.evaluate` returns it, with numbers made up."""

from __future__ import annotations

from typing import Any

SIZE = {"parameters": 22_713_216, "model_bytes": 90_852_864, "flops": 1_000_000}
SPEED = {"latency_ms_p50": 12.34, "latency_ms_p95": 1234.5, "latency_device": "cpu"}


def example(
    accuracies: dict[str, list[float | None]] | None = None, slices: list[str] | None = None, metric: str = "accuracy"
) -> dict[str, Any]:
    """accuracies: per model the overall value and that of each slice."""
    accuracies = accuracies or {"teacher": [0.9, 0.95, 0.85], "student": [0.8, 0.7, 0.9], "baseline": [0.6, 0.7, 0.5]}
    slices = ["domain=bank", "domain=home"] if slices is None else slices
    return {
        "schema_version": 2,
        "task": "text_classification" if metric == "accuracy" else "causal_lm",
        "metric": metric,
        "higher_is_better": metric == "accuracy",
        "verdict": {
            "outcome": "DO_NOT_SHIP",
            "exit_code": 3,
            "because": ["quality: too low"],
            "against_baseline": "BEATS",
        },
        "gates": [{"name": "quality", "outcome": "fail", "says": "too low"}],
        "bar": {"name": "example"},
        "data": {"fingerprint": "a1b2", "split": "test", "n": 5500},
        "models": {name: _model(name, values, slices, metric) for name, values in accuracies.items()},
        "differences": {
            "student-baseline": {"metric": metric, "value": 0.2, "interval": [0.1512, 0.25], "n": 5500},
        },
        "measured": {"models": dict.fromkeys(accuracies, SPEED)},
    }


def _model(name: str, values: list[float | None], slices: list[str], metric: str) -> dict[str, Any]:
    against = None if name == "teacher" else {"agreement": 0.88, "retention": 1.234}
    more = {"against_teacher": against, "calibration": None}
    overall, *by_slice = [{"n": 450, "num_labelled": 450, metric: value, **more} for value in values]
    return {
        "overall": overall | {"n": 5500, "num_labelled": 5500},
        "slices": dict(zip(slices, by_slice, strict=True)),
        "size": SIZE,
        "path": None,
    }
