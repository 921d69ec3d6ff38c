"""What of an `evaluation.json` several sections ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from potstill.evaluation.ranking import SHARES, counted, main_model, slices_worst_first
from potstill.reporting.format import format_value

Evaluation = Mapping[str, Any]

METRIC_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
    "ndcg_at_10": "nDCG@10",
    "recall_at_10": "recall@10",
    "accuracy_at_1": "accuracy@1",
    "spearman": "Spearman correlation",
    "exact_match": "exact match",
    "numeric_match": "right final numbers",
}
FIRST = ("student", "teacher", "baseline")  # whose colours and marks are the same in every report
OUTCOMES = {"pass": "passes", "fail": "fails", "not_enough_evidence": "not enough evidence"}


def metric_name(metric: str) -> str:
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def models_in_order(evaluation: Evaluation) -> list[str]:
    """Student, teacher, baseline, then the others as they come; a model that is missing leaves its place."""
    models = evaluation["models"]
    return [*(name for name in FIRST if name in models), *(name for name in models if name not in FIRST)]


def drawn_models(evaluation: Evaluation) -> list[str]:
    """Without the most frequent label, which would only stretch the axes."""
    return [name for name in models_in_order(evaluation) if name != "majority"]


def shown(evaluation: Evaluation) -> str:
    """The model that the report is about."""
    return main_model(dict(evaluation))


def groups(evaluation: Evaluation, model: str) -> dict[str, Any]:
    """Slice -> the model's numbers on it, the worst of the shown model first."""
    slices = evaluation["models"][model]["slices"]
    return {name: slices[name] for name in slices_worst_first(dict(evaluation), shown(evaluation))}


def count(evaluation: Evaluation, group: Mapping[str, Any]) -> int:
    return counted(dict(evaluation), dict(group))


def is_share(metric: str) -> bool:
    return metric in SHARES


def tick_text(metric: str) -> Any:
    """Writes a tick of an axis: shares as whole percents."""
    return (lambda value: f"{100 * value:g} %") if is_share(metric) else (lambda value: f"{value:g}")


def value_text(evaluation: Evaluation, group: Mapping[str, Any]) -> str:
    return format_value(evaluation["metric"], group.get(evaluation["metric"]))


def bounds(group: Mapping[str, Any], key: str = "interval") -> tuple[float | None, float | None]:
    low, high = group.get(key) or (None, None)
    return low, high


def slice_heading(names: list[str]) -> str:
    """The column of the slices; `slice` where they are of several."""
    columns = {name.partition("=")[0] for name in names}
    return columns.pop() if len(columns) == 1 else "slice"


def slice_labels(names: list[str]) -> dict[str, str]:
    """Slice -> its label in a plot: the value alone, where all slices are of one column."""
    columns = {name.partition("=")[0] for name in names}
    return {name: name.partition("=")[2] if len(columns) == 1 and "=" in name else name for name in names}
