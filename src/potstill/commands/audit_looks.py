"""What each look of an audit is given."""

# N items of a split, C classes

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from potstill.audit.contamination import NEAR, contamination
from potstill.audit.coverage import coverage
from potstill.audit.distance import distance_to_nearest, tfidf_vectors
from potstill.audit.features import first_words
from potstill.audit.found_slices import found_slices
from potstill.audit.teacher_quality import conflicts, teacher_quality
from potstill.audit.texts import normalise
from potstill.commands.audit_data import Part, Right, Said
from potstill.models.embed import embed
from potstill.reporting.progress import tracked

TFIDF = "TF-IDF of words and pairs of words"


def right_of(said: Said, test: Part, names: list[str] | None) -> Right:
    """Per model 1 where it was right, 0 where it was wrong, `nan` where there is no gold label."""
    if names is None:
        return {}
    numbers = {name: number for number, name in enumerate(names)}
    gold_N = np.array([numbers.get(label or "", -1) for label in test.labels])
    answers = {name: by_split["test"].argmax(1) for name, by_split in said.items()}
    return {name: np.where(gold_N < 0, np.nan, answer_N == gold_N) for name, answer_N in answers.items()}


def look_at_contamination(
    parts: Mapping[str, Part], right: Right, *, threshold: float = NEAR, ngram: int | None = None
) -> dict[str, Any]:
    others = {split: part.texts for split, part in parts.items() if split != "test"}
    test = parts["test"].texts
    return contamination(test, others, threshold=threshold, ngram=ngram, right=right, progress=tracked)


def look_at_coverage(transfer: Part, sample: Part, right: Right, encoder: str | None = None) -> dict[str, Any]:
    """Images have cells, and no distances."""
    distance = _distance(transfer, sample, right, encoder) if sample.is_text else None
    columns = transfer.columns(sample), sample.columns(sample)
    return coverage(*columns, crossed=list(sample.slices), distance=distance)


def _distance(transfer: Part, sample: Part, right: Right, encoder: str | None) -> dict[str, Any]:
    texts = transfer.texts.prompt, sample.texts.prompt
    if encoder:
        vectors = [embed(encoder, list(each), key="encoder", progress=tracked) for each in texts]
    else:
        vectors = tfidf_vectors(*texts)
    shown = {"texts": sample.texts.prompt, "transfer_texts": transfer.texts.prompt}
    return distance_to_nearest(*vectors, embedding=encoder or TFIDF, right=right, **shown)


def look_at_found_slices(right: Right, test: Part) -> dict[str, Any] | None:
    """None without a teacher and a student whose answers are right or wrong."""
    if not {"teacher", "student"} <= right.keys():
        return None
    texts = [normalise(text) for text in test.texts.prompt]
    first = {"first word": first_words(texts)} if test.is_text else {}
    failed = (right["teacher"] == 1) & (right["student"] == 0)
    return found_slices({**test.columns(test), **first}, failed, texts)


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
        return teacher_quality(texts, part.labels, [_named(label) for label in column], slices_and_labels(part))
    if "teacher" in said:
        probability_NC = said["teacher"][split]
        labels = [names[number] for number in probability_NC.argmax(1)]
        options = {"probabilities": probability_NC, "classes": names}
        return teacher_quality(texts, part.labels, labels, slices_and_labels(part), **options)
    return {"conflicts": conflicts(texts, part.labels)}


def slices_and_labels(part: Part) -> dict[str, list[str]]:
    """The declared slices and the classes."""
    return {**part.slices, "label": [label or "(none)" for label in part.labels]}


def _named(label: str) -> str | None:
    return None if label == "(none)" else label
