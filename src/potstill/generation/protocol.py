"""What is asked of a teacher, what comes back, and who answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

KEY_VERSION = 1  # of what a request's key is made of; a new one makes every request a new one


@dataclass(frozen=True)
class Request:
    """One call. body: all that is sent. sample: tells requests of equal bodies apart, of which each is an own draw."""

    body: str  # canonical JSON
    key: bytes
    sample: int = 0

    @property
    def num_choices(self) -> int:
        return int(json.loads(self.body).get("n") or 1)

    @property
    def max_tokens(self) -> int:
        """That it can cost at most. A token stands for one byte at least, so a prompt has no more tokens than bytes."""
        body = json.loads(self.body)
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or 0
        return self.max_prompt_tokens + int(limit) * self.num_choices

    @property
    def max_prompt_tokens(self) -> int:
        body = json.loads(self.body)
        return len(json.dumps(body.get("messages") or body.get("prompt"), ensure_ascii=False).encode())


@dataclass(frozen=True)
class Reply:
    """What came back, as it came. headers: names in lower case."""

    status: int
    raw: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class UnreachableError(Exception):
    """Nothing was sent: no connection. May be asked again without a doubt."""


class BrokenError(Exception):
    """Something was sent, and no whole reply came: it may have been paid for."""


class TextTeacher(Protocol):
    """Answers the bodies of the OpenAI API, whatever stands behind it."""

    name: str  # of the endpoint: part of every key

    async def send(self, body: str) -> Reply:
        """Raises UnreachableError and BrokenError."""
        ...

    async def close(self) -> None: ...


def make_request(body: Mapping[str, Any], endpoint: str, revision: str | None, sample: int) -> Request:
    """A request whose key is the hash of all that decides the answer."""
    text = canonical(body)
    decides = {"body": text, "endpoint": endpoint, "revision": revision, "sample": sample, "version": KEY_VERSION}
    return Request(text, hashlib.sha256(canonical(decides).encode()).digest(), sample)


def canonical(value: Any) -> str:
    """One spelling for one value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
