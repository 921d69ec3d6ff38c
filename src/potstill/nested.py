"""Nested configs by dotted keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(node: Any, key: str = "") -> dict[str, Any]:
    """Dotted key -> value, below `key`. Lists, and mappings without keys, are values."""
    if not isinstance(node, Mapping) or not node:
        return {key: node}
    prefix = f"{key}." if key else ""
    return {path: value for name, inner in node.items() for path, value in flat(inner, f"{prefix}{name}").items()}
