"""Keep credentials out of everything that is written down or sent."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "<hidden>"

# `max_tokens` is no secret (the word must end the name), and neither is a tokenizer's `pad_token`.
_SECRET_NAME = re.compile(
    r"(?<!bos_)(?<!eos_)(?<!pad_)(?<!unk_)(?<!sep_)(?<!cls_)(?<!mask_)"
    r"(api[_-]?key|access[_-]?key|private[_-]?key|token|secret|password|passwd|credentials?)$",
    re.IGNORECASE,
)
_SECRET_SHAPE = re.compile(r"\b(hf_|sk-|ghp_|github_pat_|wandb_v\d_)[\w-]{16,}|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_SHORTEST_SECRET = 8  # characters; a shorter value of an environment variable would blank out ordinary words


def redact(value: Any, name: str = "") -> Any:
    """A copy of `value` (mappings, lists and strings, nested) in which credentials read `<hidden>`.

    Hidden are: what stands under a name that ends like a credential's (`api_key`, `hub_token`), the value of an
    environment variable with such a name wherever it occurs, text of a known token's shape, and `user:password@` in
    addresses. In a list, `name=value` texts (command line overrides) count as named.
    """
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, name) for item in value]
    if value is not None and _SECRET_NAME.search(name):
        return HIDDEN
    return _redact_text(value) if isinstance(value, str) else value


def _redact_text(text: str) -> str:
    name, equals, value = text.partition("=")
    if equals and value and _SECRET_NAME.search(name):
        return f"{name}={HIDDEN}"
    for secret in _environment_secrets():
        text = text.replace(secret, HIDDEN)
    return _SECRET_SHAPE.sub(HIDDEN, text)


def _environment_secrets() -> list[str]:
    """Longest first, so that one secret inside another leaves no rest."""
    found = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    return sorted((value for value in found if len(value) >= _SHORTEST_SECRET), key=len, reverse=True)
