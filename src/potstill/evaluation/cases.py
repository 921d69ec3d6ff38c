"""Single items: what each model said of them, which are worth reading, and which labels are taken for which."""

# E examples

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from potstill.evaluation.answers import Answers, answers_by_example
from potstill.evaluation.compare import Compared, per_example
from potstill.evaluation.fidelity import error_kinds
from potstill.evaluation.scores import NO_ANSWER, Scores

MAX_EXAMPLES = 10  # of each kind
MAX_CONFUSIONS = 30
MAX_CHARACTERS = 200
KINDS = ("only_teacher_right", "both_wrong_alike", "both_wrong_apart", "only_model_right")


@dataclass(frozen=True)
class Items:
    """What is known of E examples besides what models make of them. hashes: as in the test manifest."""

    hashes: Sequence[str]
    texts: Sequence[str]
    label_names: Sequence[str] | None = None
    slice_values: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def about(self, example: int) -> dict[str, Any]:
        slices = {column: values[example] for column, values in self.slice_values.items()}
        return {"item": self.hashes[example], "text": self.texts[example][:MAX_CHARACTERS], "slices": slices}

    def name(self, label: int) -> str | None:
        """None of a class that a model did not give: its logits hold a nan."""
        if label == NO_ANSWER:
            return None
        return str(label) if self.label_names is None else self.label_names[label]


def has_one_row(scores: Compared) -> bool:
    """A row is an example: classes, not tokens."""
    return isinstance(scores, Scores) and np.array_equal(scores.example, np.arange(scores.num_examples))


def examples(scores: Mapping[str, Compared], items: Items) -> dict[str, list[dict[str, Any]]]:
    """By kind of disagreement between teacher and student, those first of which the student is surest."""
    teacher, student = scores.get("teacher"), scores.get("student")
    if not isinstance(teacher, Scores) or not isinstance(student, Scores) or not has_one_row(student):
        return {}
    kinds = error_kinds(teacher, student)
    surest_first = np.argsort(-student.confidence, kind="stable")
    return {
        kind: [
            {
                **items.about(example),
                "gold": items.name(int(student.label[example])),
                "teacher": items.name(int(teacher.top1[example])),
                "student": items.name(int(student.top1[example])),
                "teacher_confidence": float(teacher.confidence[example]),
                "student_confidence": float(student.confidence[example]),
            }
            for example in surest_first[kinds[kind][surest_first]][:MAX_EXAMPLES].tolist()
        ]
        for kind in KINDS
    }


def confusions(scores: Mapping[str, Compared], items: Items) -> list[dict[str, Any]]:
    """Pairs of a gold and another label, by how often each model takes one for the other; what differs most first."""
    counts = {name: _confused(each) for name, each in scores.items() if isinstance(each, Scores) and has_one_row(each)}
    pairs = sorted(set().union(*counts.values()))
    student, teacher = counts.get("student", Counter()), counts.get("teacher", Counter())
    pairs.sort(key=lambda pair: (-abs(student[pair] - teacher[pair]), -student[pair]))
    return [
        {
            "gold": items.name(gold),
            "predicted": items.name(predicted),
            **{name: counted[gold, predicted] for name, counted in counts.items()},
        }
        for gold, predicted in pairs[:MAX_CONFUSIONS]
    ]


def lines(
    scores: Mapping[str, Compared], items: Items, metric: str, answers: Mapping[str, Answers] | None = None
) -> Iterator[dict[str, Any]]:
    """Of every item what each model made of it: for paired tests between runs."""
    told = {name: _by_example(each, metric) for name, each in scores.items()}
    written = {name: answers_by_example(each) for name, each in (answers or {}).items()}
    for example, item in enumerate(items.hashes):
        models = {name: facts[example] for name, facts in told.items()}
        for name, found in written.items():
            models[name] |= {"generated": found.get(example)}
        yield {**items.about(example), "item": item, "models": models}


def _by_example(scores: Compared, metric: str) -> list[dict[str, Any]]:
    empty: dict[str, Any] = {"rows": 0}
    found = [dict(empty) for _ in range(scores.num_examples)]
    numbers = np.unique(scores.example[scores.labelled]).tolist()
    wanted = {"right": "accuracy", "nll": "perplexity"} if isinstance(scores, Scores) else {"value": metric}
    if metric == "spearman":
        columns = {"value": np.asarray(scores.values["cosine"])[scores.labelled]}  # type: ignore[union-attr]
        rows = np.ones(len(numbers))
    else:
        columns = {name: per_example(scores, each)[0] for name, each in wanted.items()}
        rows = per_example(scores, metric)[1]
    for place, example in enumerate(numbers):
        found[example] = {"rows": int(rows[place]), **{name: float(each[place]) for name, each in columns.items()}}
    if isinstance(scores, Scores) and has_one_row(scores):
        for example, facts in enumerate(found):
            facts |= {"answer": int(scores.top1[example]), "confidence": float(scores.confidence[example])}
    return found


def _confused(scores: Scores) -> Counter[tuple[int, int]]:
    wrong_N = scores.labelled & ~scores.right
    pairs = zip(scores.label[wrong_N].tolist(), scores.top1[wrong_N].tolist(), strict=True)
    return Counter((gold, answer) for gold, answer in pairs if answer != NO_ANSWER)
