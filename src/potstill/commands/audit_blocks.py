"""What an audit adds to `evaluation.json`: the data behind the numbers, looked at with the scores at hand."""

# E examples

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from potstill.audit.teacher_quality import teacher_quality
from potstill.commands.audit_data import Part, Right, parts_of
from potstill.commands.audit_looks import (
    look_at_contamination,
    look_at_coverage,
    look_at_found_slices,
    slices_and_labels,
)
from potstill.commands.shared import Source
from potstill.evaluation.compare import Compared
from potstill.evaluation.scores import NO_ANSWER, Scores


def audit_blocks(source: Source, scores: Mapping[str, Compared]) -> dict[str, Any]:
    """`contamination`, `coverage`, `teacher_quality` and `found_slices` of `evaluation.json`.

    Who was right is known of classifiers, one answer an example; of other tasks the last two are None.
    """
    data = source.data
    parts = parts_of(data.examples, data.slices, source.label_names)
    answers = {name: each for name, each in scores.items() if isinstance(each, Scores) and not source.task.is_causal}
    right: Right = {name: np.where(each.labelled, each.right, np.nan) for name, each in answers.items()}
    return {
        "contamination": look_at_contamination(parts, right),
        "coverage": look_at_coverage(parts["train"], parts["test"], right),
        "teacher_quality": _teacher_quality(parts["test"], answers, source.label_names),
        "found_slices": look_at_found_slices(right, parts["test"]),
    }


def _teacher_quality(test: Part, answers: Mapping[str, Scores], names: list[str] | None) -> dict[str, Any] | None:
    if "teacher" not in answers or names is None:
        return None
    teacher = answers["teacher"]
    labels = ["(no answer)" if number == NO_ANSWER else names[number] for number in teacher.top1]
    confidence_E = np.exp(-teacher.nll)
    slices = slices_and_labels(test)
    return teacher_quality(test.texts.prompt, test.labels, labels, slices, confidence_in_gold=confidence_E)
