"""What is tested every time, and what only by `make thorough`."""

from __future__ import annotations

from typing import Any

import pytest


def one_and_others(*values: Any) -> list[Any]:
    """Parameters of a test that takes long: the first every time, the others by `make thorough`."""
    return [values[0], *(_thorough(value) for value in values[1:])]


def _thorough(value: Any) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=pytest.mark.thorough)
