"""What is measured of one model on one group of rows: against gold, and against the teacher."""

# N rows

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.evaluation.calibration import expected_calibration_error, reliability, selective
from potstill.evaluation.compare import Compared, is_right_or_wrong, per_example
from potstill.evaluation.fidelity import against_teacher
from potstill.evaluation.metrics import accuracy, bits_per_byte, macro_f1, perplexity
from potstill.evaluation.scores import NO_ANSWER, Scores
from potstill.evaluation.shares import quotient, share
from potstill.evaluation.statistics import Interval, paired_bootstrap
from potstill.evaluation.texts import TextScores, measure_texts, spearman_over
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


def group(
    scores: Compared, teacher: Compared | None, task: Task, num_bytes: int, *, min_items: int, in_full: bool
) -> dict[str, Any]:
    """Everything on one group of rows: the metrics, `interval` of the main one, calibration, and against the teacher.

    teacher: its scores on the same rows; None where there is none, or where these are its own. in_full: with the
    tables that would be too many for every slice.
    """
    measured, metric = measure(scores, task, num_bytes), main_metric(task, [scores])
    interval = interval_of(scores, metric)
    found = {**measured, "is_too_small": interval.n < min_items, "num_items": interval.n}
    found["interval"] = [interval.low, interval.high]
    found["num_nonfinite"] = int((scores.top1 == NO_ANSWER).sum()) if isinstance(scores, Scores) else 0
    found["calibration"] = _calibration(scores, in_full) if isinstance(scores, Scores) else None
    if in_full:
        found["selective"] = _selective(scores) if isinstance(scores, Scores) else None
    found["generation"] = None  # texts are scored here; see `answers.with_answers` for those that were generated
    found["against_teacher"] = None
    if teacher is not None:
        teacher_value = measure(teacher, task, num_bytes)[metric]
        found["against_teacher"] = against_teacher(teacher, scores, metric, measured[metric], teacher_value)
    return found


def interval_of(scores: Compared, metric: str) -> Interval:
    """Of a main metric, over examples; Wilson's where each is right or wrong."""
    if isinstance(scores, TextScores) and scores.is_scored:
        return paired_bootstrap(spearman_over, [scores.values["cosine"], scores.label])
    if is_right_or_wrong(scores, metric):
        gold = scores.where(scores.labelled)
        assert isinstance(gold, Scores)
        return share(gold.right, gold.example)
    return paired_bootstrap(_exponential if metric == "perplexity" else quotient, list(per_example(scores, metric)))


def _calibration(scores: Scores, in_full: bool) -> dict[str, Any]:
    gold = scores.where(scores.labelled)
    found = {
        "nll": _mean(gold.nll),
        "entropy": _mean(scores.entropy),
        "mean_confidence": _mean(gold.confidence),
    }
    error = expected_calibration_error(gold.confidence, gold.right, gold.example)
    found = {"ece": error.value, "ece_interval": [error.low, error.high], **found}
    if in_full and np.isfinite(gold.confidence).all():
        found["reliability"] = reliability(gold.confidence, gold.right)
    return found


def _selective(scores: Scores) -> list[dict[str, Any]]:
    gold = scores.where(scores.labelled)
    return selective(gold.confidence, gold.right, gold.example)


def _exponential(nats: NDArray, rows: NDArray, axis: int = -1) -> NDArray:
    with np.errstate(over="ignore"):
        return np.exp(quotient(nats, rows, axis))


def _mean(values_N: NDArray) -> float:
    return float(values_N.mean()) if len(values_N) else math.nan
