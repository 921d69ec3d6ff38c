"""A model against its teacher: what it kept, what it lost, and which of the teacher's errors it repeats."""

# N rows

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.evaluation.compare import Compared, per_example
from potstill.evaluation.metrics import LOWER_IS_BETTER, agreement, retention
from potstill.evaluation.scores import Scores
from potstill.evaluation.shares import as_dict, quotient, share
from potstill.evaluation.statistics import paired_bootstrap
from potstill.evaluation.texts import TextScores


def against_teacher(
    teacher: Compared, scores: Compared, metric: str, value: float, teacher_value: float
) -> dict[str, Any]:
    """Both on the same rows. value, teacher_value: of `metric` on these.

    Pairs of texts with a score have no agreement: there is nothing to choose.
    """
    found: dict[str, Any] = {}
    if not (isinstance(scores, TextScores) and scores.is_scored):
        found["agreement"] = agreement(scores.top1, teacher.top1)
    if isinstance(scores, Scores) and isinstance(teacher, Scores):
        found |= {"kl": _mean(scores.kl), "top5_overlap": _mean(scores.top5)}
        found["entropy_gap"] = _mean(scores.entropy) - _mean(teacher.entropy)
    found["retention"] = retention(value, teacher_value, metric)
    found["retention_interval"] = retention_interval(teacher, scores, metric)
    if isinstance(scores, Scores) and isinstance(teacher, Scores):
        found["errors"] = error_table(teacher, scores)
        found["copied_errors"] = copied_errors(teacher, scores)
    return found


def error_kinds(teacher: Scores, scores: Scores) -> dict[str, NDArray[np.bool_]]:
    """Labelled rows by who is right: masks over all rows, `[N]`, that share none."""
    gold, right, teacher_right, alike = scores.labelled, scores.right, teacher.right, scores.top1 == teacher.top1
    return {
        "both_right": gold & teacher_right & right,
        "only_teacher_right": gold & teacher_right & ~right,
        "only_model_right": gold & ~teacher_right & right,
        "both_wrong_alike": gold & ~teacher_right & ~right & alike,
        "both_wrong_apart": gold & ~teacher_right & ~right & ~alike,
    }


def error_table(teacher: Scores, scores: Scores) -> dict[str, int]:
    return {kind: int(rows_N.sum()) for kind, rows_N in error_kinds(teacher, scores).items()}


def copied_errors(teacher: Scores, scores: Scores) -> dict[str, Any]:
    """P(the model gives the teacher's wrong answer | the teacher is wrong), over labelled rows, with its interval."""
    wrong_N = teacher.labelled & ~teacher.right
    copied_N = scores.top1 == teacher.top1
    return as_dict(share(copied_N[wrong_N], teacher.example[wrong_N]))


def retention_interval(teacher: Compared, scores: Compared, metric: str) -> list[float]:
    """Over examples; none of a correlation, which is no mean."""
    if metric == "spearman":
        return [math.nan, math.nan]
    columns = per_example(scores, metric), per_example(teacher, metric)
    statistic = _of_perplexities if metric in LOWER_IS_BETTER else _of_sums
    found = paired_bootstrap(statistic, [*(sums_E for sums_E, _ in columns), columns[0][1]])
    return [found.low, found.high]


def _of_sums(model: NDArray, teacher: NDArray, _rows: NDArray, axis: int = -1) -> NDArray:
    return quotient(model, teacher, axis)


def _of_perplexities(model: NDArray, teacher: NDArray, rows: NDArray, axis: int = -1) -> NDArray:
    with np.errstate(over="ignore"):
        return np.exp(quotient(teacher - model, rows, axis))


def _mean(values_N: NDArray) -> float:
    return float(values_N.mean()) if len(values_N) else math.nan
