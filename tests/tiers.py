"""What is tested every time, and what only by `make thorough`."""

from __future__ import annotations

import os
from typing import Any

import pytest

IS_THOROUGH = bool(os.environ.get("POTSTILL_THOROUGH"))


def one_and_others(*values: Any) -> list[Any]:
    """Parameters of a test that takes long: the first every time, the others by `make thorough`."""
    return [values[0], *(pytest.param(value, marks=pytest.mark.thorough) for value in values[1:])]


def one_and_other_rows(*rows: tuple[Any, ...]) -> list[Any]:
    """As `one_and_others`, of a test with several parameters: a row is one value of each."""
    return [rows[0], *(pytest.param(*row, marks=pytest.mark.thorough) for row in rows[1:])]
