"""From a raw reply to answer, rationale and reasoning. Needs no call: what is kept can be read again, otherwise."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from potstill.generation.labels import ClosedList

_THOUGHT = re.compile(r"\s*<think>(?P<reasoning>.*?)</think>\s*(?P<rest>.*)", re.S)
_OPEN_THOUGHT = re.compile(r"\s*<think>(?P<reasoning>(?:(?!</think>).)*)", re.S)


@dataclass(frozen=True)
class Choice:
    """text: what was said, as it came. answer, rationale: by the pattern; None where it does not match. Where there are
    labels, an answer that is one of them is spelled as they are."""

    text: str
    answer: str | None
    rationale: str | None
    reasoning: str | None
    finish_reason: str | None
    logprobs: Any = None


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


def choices_of(raw: bytes, pattern: re.Pattern[str] | None, labels: ClosedList | None = None) -> list[Choice]:
    """The choices of a reply, in the order of their index. pattern: with a group `answer` and perhaps `rationale`."""
    choices = sorted(json.loads(raw)["choices"], key=lambda choice: choice.get("index") or 0)
    return [_choice(choice, pattern, labels) for choice in choices]


def usage_of(raw: bytes) -> Usage | None:
    """What the endpoint says was used, or None where it does not say."""
    usage = json.loads(raw).get("usage") or {}
    if not isinstance(usage.get("prompt_tokens"), int):
        return None
    return Usage(usage["prompt_tokens"], int(usage.get("completion_tokens") or 0))


def _choice(choice: dict[str, Any], pattern: re.Pattern[str] | None, labels: ClosedList | None) -> Choice:
    message = choice.get("message") or {}
    text = message.get("content") if "message" in choice else choice.get("text")
    text = text if isinstance(text, str) else ""
    reasoning, said = _reasoning(message.get("reasoning_content") or message.get("reasoning"), text)
    answer, rationale = _split(said, pattern)
    if labels and answer is not None:
        answer = labels.spelled(answer)
    return Choice(text, answer, rationale, reasoning, choice.get("finish_reason"), choice.get("logprobs"))


def _reasoning(given: Any, text: str) -> tuple[str | None, str]:
    """Reasoning in a field of its own, or between <think> and </think>; without an end, nothing else was said."""
    if given:
        return str(given), text
    if thought := _THOUGHT.fullmatch(text):
        return thought["reasoning"].strip(), thought["rest"]
    if thought := _OPEN_THOUGHT.fullmatch(text):
        return thought["reasoning"].strip(), ""
    return None, text


def _split(text: str, pattern: re.Pattern[str] | None) -> tuple[str | None, str | None]:
    if pattern is None:
        return text.strip(), None
    found = pattern.search(text)
    if not found:
        return None, None
    groups = found.groupdict()
    return groups["answer"].strip(), (groups.get("rationale") or "").strip() or None
