"""What each look of an audit is given."""

# N items of a split, C classes

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.audit.contamination import contamination
from potstill.audit.coverage import coverage
from potstill.audit.distance import distance_to_nearest, tfidf_vectors
from potstill.audit.teacher_quality import conflicts, teacher_quality
from potstill.commands.audit_data import Part
from potstill.commands.audit_models import Said
from potstill.config.schema import AuditConfig
from potstill.models.embed import embed
from potstill.reporting.progress import tracked

Right = dict[str, NDArray[np.float64]]


def right_of(said: Said, test: Part, names: list[str] | None) -> Right:
    """Per model 1 where it was right, 0 where it was wrong, `nan` where there is no gold label."""
    if names is None:
        return {}
    numbers = {name: number for number, name in enumerate(names)}
    gold_N = np.array([numbers.get(label or "", -1) for label in test.labels])
    answers = {name: by_split["test"].argmax(1) for name, by_split in said.items()}
    return {name: np.where(gold_N < 0, np.nan, answer_N == gold_N) for name, answer_N in answers.items()}


def look_at_contamination(
    parts: Mapping[str, Part], trained_on: Mapping[str, Part], right: Right, options: AuditConfig
) -> dict[str, Any]:
    others = {split: part.texts for split, part in (dict(parts) | dict(trained_on)).items() if split != "test"}
    limits = {"threshold": options.jaccard, "ngram": options.ngram}
    return contamination(parts["test"].texts, others, **limits, right=right, progress=tracked)


def look_at_coverage(transfer: Part, sample: Part, right: Right, options: AuditConfig) -> dict[str, Any]:
    """Errors by distance where the sample is the test set, on which it is known who was right."""
    texts = transfer.texts.prompt, sample.texts.prompt
    if options.encoder:
        vectors = [embed(options.encoder, list(each), key="encoder", progress=tracked) for each in texts]
        embedding = options.encoder
    else:
        vectors, embedding = tfidf_vectors(*texts), "TF-IDF of words and pairs of words"
    known = right if options.production is None else {}
    shown = {"texts": sample.texts.prompt, "transfer_texts": transfer.texts.prompt}
    distance = distance_to_nearest(*vectors, embedding=embedding, right=known, **shown)
    columns = transfer.columns(sample), sample.columns(sample)
    return coverage(*columns, crossed=list(sample.slices), distance=distance)


def look_at_teacher(
    parts: Mapping[str, Part], said: Said, told: Mapping[str, Part], names: list[str] | None
) -> dict[str, Any] | None:
    """By split; without a teacher its `conflicts` alone. None where nothing has a label."""
    if names is None:
        return None
    return {split: _of_split(split, part, said, told, names) for split, part in parts.items()}


def _of_split(split: str, part: Part, said: Said, told: Mapping[str, Part], names: list[str]) -> dict[str, Any]:
    texts = part.texts.prompt
    if split in told:
        [column] = told[split].slices.values()
        return teacher_quality(texts, part.labels, [_named(label) for label in column], _slices(part))
    if "teacher" in said:
        probability_NC = said["teacher"][split]
        labels = [names[number] for number in probability_NC.argmax(1)]
        options = {"probabilities": probability_NC, "classes": names}
        return teacher_quality(texts, part.labels, labels, _slices(part), **options)
    return {"conflicts": conflicts(texts, part.labels)}


def _slices(part: Part) -> dict[str, list[str]]:
    """The declared slices and the classes."""
    return {**part.slices, "label": [label or "(none)" for label in part.labels]}


def _named(label: str) -> str | None:
    return None if label == "(none)" else label
