"""Which metrics a task is measured by, applied to one group of rows."""

# N rows

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from potstill.evaluation.compare import Compared
from potstill.evaluation.metrics import accuracy, agreement, bits_per_byte, macro_f1, perplexity, retention
from potstill.evaluation.texts import TextScores, measure_texts
from potstill.models.task import Task


def main_metric(task: Task, scores: Iterable[Compared]) -> str:
    """The metric that slices are ranked by, retention is taken of and differences are tested on."""
    if task.is_embedding:
        return "spearman" if any(isinstance(each, TextScores) and each.is_scored for each in scores) else "ndcg_at_10"
    return "perplexity" if task.is_causal else "accuracy"


def measure(scores: Compared, task: Task, num_bytes: int) -> dict[str, Any]:
    """`n` rows, how many of them have a gold label, and the task's metrics over those that have.

    num_bytes: UTF-8 bytes of the scored text behind these rows; read for causal language models only.
    """
    if isinstance(scores, TextScores):
        return measure_texts(scores)
    gold = scores.where(scores.labelled)
    counts = {"n": len(scores.label), "num_labelled": len(gold.label)}
    if task.is_causal:
        likelihoods = {"perplexity": perplexity(gold.nll), "bits_per_byte": bits_per_byte(gold.nll, num_bytes)}
        return counts | likelihoods | {"accuracy": accuracy(gold.top1, gold.label)}
    return counts | {"accuracy": accuracy(gold.top1, gold.label), "macro_f1": macro_f1(gold.top1, gold.label)}


def measure_against(
    teacher: tuple[Compared, dict[str, Any]] | None, scores: Compared, measured: dict[str, Any], metric: str
) -> dict[str, float]:
    """Agreement with the teacher over all rows, and retention of its `metric`; `nan` without a teacher.

    teacher: its scores on the same rows, and what `measure` made of them. Pairs with a score have no agreement: there
        is nothing to choose.
    """
    has_choice = not (isinstance(scores, TextScores) and scores.is_scored)
    found = {"agreement": math.nan} if has_choice else {}
    if teacher is None:
        return found | {"retention": math.nan}
    teacher_scores, teacher_measured = teacher
    if has_choice:
        found["agreement"] = agreement(scores.top1, teacher_scores.top1)
    return found | {"retention": retention(measured[metric], teacher_measured[metric], metric)}
