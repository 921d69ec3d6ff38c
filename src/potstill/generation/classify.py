"""What a reply means for the request: an answer, or which kind of failure."""

from __future__ import annotations

import json
import re
from typing import Any

from potstill.generation.protocol import Reply

# answer: kept. rate: too much was asked; costs no attempt. transient: may work next time. never: this request is not
# taken, others may be. person: nobody's next request is taken, until somebody does something.
ANSWER, RATE, TRANSIENT, NEVER, PERSON = "answer", "rate", "transient", "never", "person"

_QUOTA = re.compile(r"insufficient_quota|exceeded your current quota|billing|out of credits|payment required", re.I)
_MODEL = re.compile(
    r"model_not_found|invalid model|model .{0,200}(does not exist|not found|not exist)|no such model|server is pinned",
    re.I | re.S,
)
_MAX_REASON = 300  # characters


def classify(reply: Reply) -> tuple[str, str]:
    """Class and reason."""
    text = reply.raw.decode("utf-8", "replace")
    said = f"{reply.status} {message_of(text)}".strip()
    if reply.status == 200:
        problem = problem_of(reply.raw)
        return (TRANSIENT, problem) if problem else (ANSWER, "")
    if reply.status in (401, 402, 403, 404):
        return PERSON, said
    if reply.status in (400, 422) and _MODEL.search(text):
        return PERSON, said
    if reply.status == 429:
        return (PERSON if _QUOTA.search(text) else RATE), said
    if reply.status == 503 and "retry-after" in reply.headers:
        return RATE, said
    if reply.status in (408, 409, 425) or reply.status >= 500 or reply.status < 400:
        return TRANSIENT, said
    return NEVER, said


def problem_of(raw: bytes) -> str | None:
    """Why a reply of status 200 is none; None where it is one."""
    if not raw.strip():
        return "the reply is empty"
    try:
        body = json.loads(raw)
    except ValueError:
        return "the reply is no JSON"
    choices = body.get("choices") if isinstance(body, dict) else None
    if isinstance(body, dict) and body.get("error"):
        return f"the reply is an error with status 200: {message_of(raw.decode('utf-8', 'replace'))}"
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        return "the reply has no choices"
    return None


def message_of(text: str) -> str:
    """What an error says, wherever it stands in the body."""
    try:
        body: Any = json.loads(text)
    except ValueError:
        body = text
    for name in ("error", "detail", "message"):
        if isinstance(body, dict) and name in body:
            body = body[name]
    return (body if isinstance(body, str) else json.dumps(body))[:_MAX_REASON]
