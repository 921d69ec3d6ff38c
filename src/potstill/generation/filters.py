"""What of a teacher's text is not worth training on, and why. What `generation.filters` names.

A filter sees the samples of one prompt that are still kept, and says of each why it is dropped, or None.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from potstill.data.content import content_hash
from potstill.errors import UserError, nearest, nearest_hint
from potstill.generation.sample import Sample

Reasons = list[str | None]

COMPARISONS = ("exact", "text", "numeric")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class Filter(Protocol):
    def reasons(self, samples: Sequence[Sample]) -> Reasons: ...


class Truncated:
    """Cut off at `max_tokens`, or by a filter of the endpoint."""

    def reasons(self, samples: Sequence[Sample]) -> Reasons:
        ends = [sample.choice.finish_reason for sample in samples]
        return [f"ended by {end}" if end in ("length", "content_filter") else None for end in ends]


class Empty:
    """Nothing said; reasoning alone is nothing said."""

    def reasons(self, samples: Sequence[Sample]) -> Reasons:
        return ["nothing was said" if not _said(sample).strip() else None for sample in samples]


class Refusal:
    """patterns: regular expressions, looked for at the beginning of what was said, whatever their case."""

    def __init__(self, patterns: Sequence[str]) -> None:
        if not patterns:
            raise UserError("generation.filters.refusal.patterns", [], "is empty.", "generation.filters.refusal=null")
        self._patterns = [_compiled("generation.filters.refusal.patterns", pattern) for pattern in patterns]

    def reasons(self, samples: Sequence[Sample]) -> Reasons:
        return [self._reason(_said(sample).strip()) for sample in samples]

    def _reason(self, text: str) -> str | None:
        found = next((pattern.pattern for pattern in self._patterns if pattern.match(text)), None)
        return f"begins like '{found}'" if found else None


class Malformed:
    """`generation.answer_pattern` does not match. json: and the answer must be JSON."""

    def __init__(self, json: bool = False) -> None:
        self.json = json

    def reasons(self, samples: Sequence[Sample]) -> Reasons:
        return [self._reason(sample.choice.answer) for sample in samples]

    def _reason(self, answer: str | None) -> str | None:
        if answer is None:
            return "the answer is not where answer_pattern looks for it"
        return "the answer is no JSON" if self.json and not _is_json(answer) else None


class Label:
    """The answer is none of `labels`: what `generation.labels` are, as which answers are spelled."""

    def __init__(self, labels: Sequence[str]) -> None:
        if not labels:
            fix = "Name them: generation.labels=[A,B,C]"
            raise UserError("generation.filters.label.labels", [], "is empty: everything would be dropped.", fix)
        self.labels = list(labels)

    def reasons(self, samples: Sequence[Sample]) -> Reasons:
        return [self._reason(sample.choice.answer or "") for sample in samples]

    def _reason(self, answer: str) -> str | None:
        if answer in self.labels:
            return None
        near = nearest(answer, self.labels)
        return f"'{answer[:80]}' is none of the {len(self.labels)} labels" + (f"; nearest: '{near}'" if near else "")


class TooLong:
    """max_characters: of what was said, rationale and reasoning included."""

    def __init__(self, max_characters: int) -> None:
        if max_characters < 1:
            problem = "drops everything."
            raise UserError("generation.filters.too_long.max_characters", max_characters, problem, "For example: 4000")
        self.max_characters = max_characters

    def reasons(self, samples: Sequence[Sample]) -> Reasons:
        lengths = [len(sample.choice.text) + len(sample.choice.reasoning or "") for sample in samples]
        return [f"{length} characters" if length > self.max_characters else None for length in lengths]


class Duplicate:
    """The same words to the same prompt, said before."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def reasons(self, samples: Sequence[Sample]) -> Reasons:
        found: Reasons = []
        for sample in samples:
            content = bytes.fromhex(content_hash(sample.prompt, sample.choice.text))
            found.append("said before, to the same prompt" if content in self._seen else None)
            self._seen.add(content)
        return found


class Canary:
    """strings: marks of texts that nobody may train on, as benchmarks carry them."""

    def __init__(self, strings: Sequence[str]) -> None:
        if not strings or not all(strings):
            key, problem = "generation.filters.canary.strings", "holds nothing to look for."
            raise UserError(key, list(strings), problem, "generation.filters.canary=null")
        self.strings = strings

    def reasons(self, samples: Sequence[Sample]) -> Reasons:
        return [self._reason(f"{sample.prompt}\n{sample.choice.text}\n{sample.choice.reasoning}") for sample in samples]

    def _reason(self, text: str) -> str | None:
        number = next((place for place, string in enumerate(self.strings) if string in text), None)
        return None if number is None else f"holds canary string {number}"


class Gold:
    """The answer is not the gold one, where there is one. compare: exact, text (words alone), numeric (last number)."""

    def __init__(self, compare: str = "text") -> None:
        self._normal = _normaliser(compare, "generation.filters.gold.compare")

    def reasons(self, samples: Sequence[Sample]) -> Reasons:
        return [self._reason(sample) for sample in samples]

    def _reason(self, sample: Sample) -> str | None:
        if sample.gold is None or self._normal(sample.choice.answer or "") == self._normal(sample.gold):
            return None
        return f"the answer is not {sample.gold}"


class Vote:
    """Keeps the answer that most samples of a prompt gave, where at least `min_share` of them gave it."""

    def __init__(self, min_share: float = 0.5, compare: str = "text") -> None:
        if not 0 < min_share <= 1:
            problem = "must lie in (0, 1]."
            raise UserError("generation.filters.vote.min_share", min_share, problem, "For half: 0.5")
        self.min_share = min_share
        self._normal = _normaliser(compare, "generation.filters.vote.compare")

    def reasons(self, samples: Sequence[Sample]) -> Reasons:
        answers = [self._normal(sample.choice.answer or "") for sample in samples]
        counts = Counter(answers).most_common(2)
        for sample, answer in zip(samples, answers, strict=True):
            sample.agreement = dict(Counter(answers))[answer] / len(answers)
        if not counts:
            return []
        (winner, votes), share = counts[0], counts[0][1] / len(answers)
        if share < self.min_share or (len(counts) > 1 and counts[1][1] == votes):
            return [f"no answer has {self.min_share:.0%} of the votes, or two have as many"] * len(samples)
        return [None if answer == winner else "outvoted" for answer in answers]


def apply(filters: Mapping[str, Filter], samples: Sequence[Sample]) -> tuple[list[Sample], list[tuple[Sample, str]]]:
    """What is kept, and what is dropped with `filter: reason`; by the filters in their order."""
    kept, dropped = list(samples), []
    for name, each in filters.items():
        reasons = each.reasons(kept)
        pairs = list(zip(kept, reasons, strict=True))
        dropped += [(sample, f"{name}: {reason}") for sample, reason in pairs if reason]
        kept = [sample for sample, reason in pairs if not reason]
    return kept, dropped


def _said(sample: Sample) -> str:
    answer = sample.choice.answer
    return sample.choice.text if answer is None else f"{sample.choice.rationale or ''}{answer}"


def _normaliser(compare: str, key: str) -> Any:
    if compare not in COMPARISONS:
        raise UserError(key, compare, "is no comparison.", nearest_hint(compare, COMPARISONS))
    return {"exact": str.strip, "text": _words, "numeric": last_number}[compare]


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def last_number(text: str) -> str:
    """As text of one spelling, `1,200.0` and `1200` alike; the empty text where there is none."""
    numbers = _NUMBER.findall(text)
    return f"{float(numbers[-1].replace(',', '')):.10g}" if numbers else ""


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _compiled(key: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise UserError(key, pattern, f"is no regular expression: {error}.", "Mend it.") from error
