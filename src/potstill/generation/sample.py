"""One thing a teacher said, beside what it was asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from potstill.generation.ledger import Ledger
from potstill.generation.parse import Choice, choices_of
from potstill.generation.plan import Plan, Prompt
from potstill.generation.protocol import Request

PROMPTS_AT_A_TIME = 500
LEFT_OUT = "left out: stands in the test split"


@dataclass
class Sample:
    """row: of the source. agreement: share of the prompt's samples with this answer, where a vote was taken."""

    index: int
    row: Mapping[str, object]
    number: int
    prompt: str
    gold: str | None
    request: bytes
    choice: Choice
    agreement: float | None = None

    def columns(self) -> dict[str, object]:
        choice = self.choice
        return {
            "row": self.index,
            "sample": self.number,
            "prompt": self.prompt,
            "raw": choice.text,
            "answer": choice.answer,
            "rationale": choice.rationale,
            "reasoning": choice.reasoning,
            "gold": self.gold,
            "finish_reason": choice.finish_reason,
            "logprobs": None if choice.logprobs is None else json.dumps(choice.logprobs, sort_keys=True),
            "agreement": self.agreement,
            "request": self.request.hex(),
        }


@dataclass(frozen=True)
class Unanswered:
    """A request without an answer, and why."""

    index: int
    prompt: str
    request: bytes
    reason: str


Said = tuple[Prompt, list[Sample], list[Unanswered]]


def said(plan: Plan, ledger: Ledger) -> Iterator[Said]:
    """Of every row in order, what was answered and what was not."""
    waiting: list[Prompt] = []
    for prompt in plan.prompts():
        waiting.append(prompt)
        if len(waiting) == PROMPTS_AT_A_TIME:
            yield from _look_up(waiting, plan, ledger)
            waiting = []
    yield from _look_up(waiting, plan, ledger)


def _look_up(prompts: list[Prompt], plan: Plan, ledger: Ledger) -> Iterator[Said]:
    keys = dict.fromkeys(request.key for prompt in prompts for request in prompt.requests)
    replies = ledger.replies(keys)
    for prompt in prompts:
        samples: list[Sample] = []
        missing: list[Unanswered] = []
        if not prompt.requests:
            missing.append(Unanswered(prompt.index, prompt.text, b"", LEFT_OUT))
        for request in prompt.requests:
            state, raw, reason = replies.get(request.key, ("not asked", None, None))
            if state == "done" and raw is not None:
                choices = choices_of(raw, plan.pattern, plan.labels)
                samples += _samples(prompt, request, choices, len(samples))
            else:
                missing.append(Unanswered(prompt.index, prompt.text, request.key, f"{state}: {reason or 'no answer'}"))
        yield prompt, samples, missing


def _samples(prompt: Prompt, request: Request, choices: list[Choice], first: int) -> list[Sample]:
    facts: Mapping[str, object] = {"index": prompt.index, "row": prompt.row, "prompt": prompt.text, "gold": prompt.gold}
    return [
        Sample(number=first + place, request=request.key, choice=choice, **facts)  # type: ignore[arg-type]
        for place, choice in enumerate(choices)
    ]
