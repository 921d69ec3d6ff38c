"""Which requests the rows need: each distinct one once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from potstill.errors import UserError
from potstill.generation.labels import ClosedList
from potstill.generation.protocol import Request, make_request
from potstill.generation.templates import RowTemplate


@dataclass(frozen=True)
class Prompt:
    """One row: what is asked, the gold answer where there is one, and its requests: none where it is left out."""

    index: int
    row: Mapping[str, Any]
    text: str
    gold: str | None
    requests: tuple[Request, ...]


@dataclass
class Plan:
    """Prompts are made anew whenever they are gone through: a million of them fit in no list.

    options: the attributes of `GenerationConfig`. endpoint: name of the teacher, part of every key. left_out: rows that
    are not asked.
    """

    table: Dataset
    options: Any
    model: str
    revision: str | None
    endpoint: str = ""
    left_out: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        columns = list(self.table.column_names)
        given = {"labels": list(self.options.labels)} if self.options.labels else {}
        self.labels = ClosedList(self.options.labels) if self.options.labels else None
        self._prompt = RowTemplate("generation.prompt", self.options.prompt, columns, given)
        system = self.options.system
        self._system = RowTemplate("generation.system", system, columns, given) if system else None
        self._gold = RowTemplate("generation.gold", self.options.gold, columns) if self.options.gold else None
        self.pattern = compiled(self.options.answer_pattern)

    def prompts(self) -> Iterator[Prompt]:
        for index, row in enumerate(self.table):
            assert isinstance(row, Mapping)
            yield self.prompt(row, index)

    def prompt(self, row: Mapping[str, Any], index: int) -> Prompt:
        text = self._prompt.render(row, index)
        gold = self._gold.render(row, index).strip() if self._gold else None
        system = self._system.render(row, index) if self._system else None
        requests = () if index in self.left_out else tuple(self._requests(text, system))
        return Prompt(index, row, text, gold or None, requests)

    def requests(self) -> Iterator[Request]:
        """Every distinct request, in the order of the rows."""
        seen: set[bytes] = set()
        for prompt in self.prompts():
            for request in prompt.requests:
                if request.key not in seen:
                    seen.add(request.key)
                    yield request

    def _requests(self, text: str, system: str | None) -> Iterator[Request]:
        options, per_request = self.options, self.options.choices_per_request
        for sample in range(-(-options.samples // per_request)):
            num_choices = min(per_request, options.samples - sample * per_request)
            body = {"model": self.model, **_asked(text, system, options), **_sampling(options, sample), **options.body}
            if num_choices > 1:
                body["n"] = num_choices
            yield make_request(body, self.endpoint, self.revision, sample)


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    key, fix = "generation.answer_pattern", "For example: '(?s)(?P<rationale>.*)####(?P<answer>.*)'"
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise UserError(key, pattern, f"is no regular expression: {error}.", fix) from error
    if "answer" not in found.groupindex:
        raise UserError(key, pattern, "has no group named answer.", fix)
    return found


def _asked(text: str, system: str | None, options: Any) -> dict[str, Any]:
    if options.api == "completions":
        return {"prompt": f"{system}\n{text}" if system else text}
    first = [{"role": "system", "content": system}] if system else []
    return {"messages": [*first, {"role": "user", "content": text}]}


def _sampling(options: Any, sample: int) -> dict[str, Any]:
    seed = None if options.seed is None else options.seed + sample
    given = {"temperature": options.temperature, "top_p": options.top_p, "seed": seed, "stop": options.stop or None}
    return {options.max_tokens_field: options.max_tokens} | {k: v for k, v in given.items() if v is not None}
