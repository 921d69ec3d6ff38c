"""A last look at what is kept, by the teacher itself: its verdicts are requests like all others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from potstill.errors import UserError
from potstill.generation.export import Outcome
from potstill.generation.ledger import Ledger
from potstill.generation.parse import choices_of
from potstill.generation.plan import Plan
from potstill.generation.protocol import Request, make_request
from potstill.generation.sample import Sample
from potstill.generation.templates import RowTemplate

OURS = ("prompt", "answer", "rationale", "raw", "gold")


class Judge:
    """options: the attributes of `JudgeConfig`. Its template sees the row's columns, and OURS."""

    def __init__(self, options: Any, plan: Plan) -> None:
        self.options, self.plan = options, plan
        self._template = RowTemplate("generation.judge.prompt", options.prompt, [*plan.table.column_names, *OURS])
        try:
            self._accept = re.compile(options.accept, re.IGNORECASE)
        except re.error as error:
            problem = f"is no regular expression: {error}."
            raise UserError("generation.judge.accept", options.accept, problem, "For example: '^yes'") from error

    def request(self, sample: Sample) -> Request:
        plan = self.plan
        text = self._template.render({**sample.row, **{name: sample.columns()[name] for name in OURS}}, sample.index)
        is_chat = plan.options.api == "chat"
        asked = {"messages": [{"role": "user", "content": text}]} if is_chat else {"prompt": text}
        body = {
            "model": plan.model,
            plan.options.max_tokens_field: self.options.max_tokens,
            "temperature": 0.0,
            **asked,
        }
        return make_request(body, plan.endpoint, plan.revision, 0)

    def requests(self, outcomes: Iterable[Outcome]) -> Iterator[Request]:
        """Every distinct one, of what the filters keep."""
        seen: set[bytes] = set()
        for kept, _, _ in outcomes:
            for request in map(self.request, kept):
                if request.key not in seen:
                    seen.add(request.key)
                    yield request

    def judged(self, outcomes: Iterable[Outcome], ledger: Ledger) -> Iterator[Outcome]:
        for kept, dropped, missing in outcomes:
            requests = [self.request(sample) for sample in kept]
            replies = ledger.replies({request.key for request in requests})
            reasons = [self._reason(*replies.get(request.key, ("not asked", None, None))) for request in requests]
            pairs = list(zip(kept, reasons, strict=True))
            against = [(sample, f"judge: {reason}") for sample, reason in pairs if reason]
            yield [sample for sample, reason in pairs if not reason], [*dropped, *against], missing

    def _reason(self, state: str, raw: bytes | None, why: str | None) -> str | None:
        if state != "done" or raw is None:
            return f"no verdict ({state}: {why or 'no answer'})"
        verdict = choices_of(raw, None)[0].answer or ""
        return None if self._accept.search(verdict) else f"said '{verdict[:80]}'"
