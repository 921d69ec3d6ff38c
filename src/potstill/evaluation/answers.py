"""Generated answers as rows of an evaluation: two that come to the same are of one class, so that all that is said of
classes (right or wrong, paired tests, copied errors) is said of answers as well.
"""

# E examples, Q prompts

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.data.batch import IGNORE
from potstill.evaluation.fidelity import copied_errors, error_table, retention_interval
from potstill.evaluation.generation import final_number, measure_generation, normalised, score_answers
from potstill.evaluation.measure import interval_of
from potstill.evaluation.metrics import agreement, retention
from potstill.evaluation.scores import NO_ANSWER, Scores
from potstill.evaluation.statistics import wilson

# how an answer is judged -> the metric, and what of a text has to be the same
JUDGED: dict[str, tuple[str, Callable[[str], Any]]] = {
    "number": ("numeric_match", final_number),
    "text": ("exact_match", normalised),
}
OF_ANSWERS = tuple(metric for metric, _ in JUDGED.values())


@dataclass(frozen=True)
class Written:
    """What one model wrote to Q prompts. truncated: ended at the limit of tokens, not by itself."""

    texts: Sequence[str]
    truncated: Sequence[bool]


@dataclass(frozen=True)
class Answers:
    """One model's answers to Q prompts. columns: of `generation.score_answers`. scores: of what they come to."""

    texts: Sequence[str]
    columns: Mapping[str, NDArray[np.float64]]
    scores: Scores

    def where(self, examples_E: NDArray[np.bool_]) -> Answers:
        """Those to the prompts of the chosen examples."""
        chosen_Q = examples_E[self.scores.example]
        texts = [text for text, is_chosen in zip(self.texts, chosen_Q, strict=True) if is_chosen]
        columns = {name: values_Q[chosen_Q] for name, values_Q in self.columns.items()}
        return Answers(texts, columns, self.scores.where(chosen_Q))


@dataclass(frozen=True)
class Generated:
    """answers: by model, to the same prompts. metric: of answers, if models are ranked by one. about: the report's
    block `generation`.
    """

    answers: Mapping[str, Answers]
    metric: str | None
    about: Mapping[str, Any]


def judge_answers(
    written: Mapping[str, Written],
    references: Sequence[str],
    example_Q: NDArray[np.int64],
    num_examples: int,
    *,
    judged_by: str,
    is_valid: Callable[[str], bool] | None,
) -> dict[str, Answers]:
    """Every model's answers against the same references. judged_by: a key of `JUDGED`. example_Q: each one's number."""
    same: dict[Any, int] = {}
    read = JUDGED[judged_by][1]
    label_Q = _classes([read(text) for text in references], same, IGNORE)
    unknown_Q = np.full(len(references), np.nan)
    found = {}
    for place, (name, each) in enumerate(written.items()):
        unreadable = NO_ANSWER - place  # two models that say nothing do not say the same
        top1_Q = _classes([read(text) for text in each.texts], same, unreadable)
        likelihoods = dict.fromkeys(("nll", "confidence", "entropy", "kl", "top5"), unknown_Q)
        scores = Scores(top1=top1_Q, label=label_Q, example=example_Q, num_examples=num_examples, **likelihoods)
        columns = score_answers(each.texts, references, truncated=each.truncated, is_valid=is_valid)
        found[name] = Answers(each.texts, columns, scores)
    return found


def with_answers(
    group: Mapping[str, Any], own: Answers | None, teacher: Answers | None, metric: str | None, min_items: int
) -> dict[str, Any]:
    """The numbers of one group (`measure.group`), and those of the answers to the prompts of its examples.

    own: None where the model wrote none. teacher: None where it wrote none, or is this model. metric: the main one, if
    it is of answers; then interval, retention and errors are theirs, not those of scored tokens.
    """
    generation = None if own is None else _measured(own)
    found = {**group, "generation": generation}
    if metric is None:
        return found
    scores = Scores.joined([]) if own is None else own.scores
    interval = interval_of(scores, metric)
    found |= {metric: interval.value, "interval": [interval.low, interval.high]}
    found |= {"num_items": interval.n, "is_too_small": interval.n < min_items}
    if group["against_teacher"] is not None:
        found["against_teacher"] = {**group["against_teacher"], **_against(own, teacher, metric)}
    return found


def answers_by_example(answers: Answers) -> dict[int, dict[str, Any]]:
    """Of each example with a prompt: the answer, and, as of any rows, how many there are to judge and are right."""
    scores = answers.scores
    facts = zip(scores.example, answers.texts, scores.labelled, scores.right, strict=True)
    return {
        int(example): {"rows": int(is_judged), "right": int(is_right), "text": text}
        for example, text, is_judged, is_right in facts
    }


def _measured(own: Answers) -> dict[str, Any]:
    intervals = {}
    for name in OF_ANSWERS:
        known_Q = own.columns[name][np.isfinite(own.columns[name])]
        found = wilson(int(known_Q.sum()), len(known_Q))
        intervals[name] = [found.low, found.high]
    return {**measure_generation(own.columns), "intervals": intervals}


def _against(own: Answers | None, teacher: Answers | None, metric: str) -> dict[str, Any]:
    if own is None or teacher is None:
        empty = Scores.joined([])
        return {
            "retention": math.nan,
            "retention_interval": [math.nan, math.nan],
            "answer_agreement": math.nan,
            "errors": error_table(empty, empty),
            "copied_errors": copied_errors(empty, empty),
        }
    value, teacher_value = (interval_of(each.scores, metric).value for each in (own, teacher))
    return {
        "retention": retention(value, teacher_value, metric),
        "retention_interval": retention_interval(teacher.scores, own.scores, metric),
        "answer_agreement": agreement(own.scores.top1, teacher.scores.top1),
        "errors": error_table(teacher.scores, own.scores),
        "copied_errors": copied_errors(teacher.scores, own.scores),
    }


def _classes(read: Sequence[Any], same: dict[Any, int], nothing: int) -> NDArray[np.int64]:
    """A number for all that was read alike; `nothing` of what could not be read."""
    return np.array([nothing if key is None else same.setdefault(key, len(same)) for key in read], dtype=np.int64)
