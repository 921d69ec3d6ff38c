"""What this sweeper refuses, before any job starts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from hydra.errors import ConfigCompositionException


class SweepError(ConfigCompositionException):
    """Bad input: `key` as the user would type it, what stands there, what follows from it, and how to mend it."""

    def __init__(self, key: str, value: object, problem: str, fix: str) -> None:
        self.key, self.value, self.problem, self.fix = key, value, problem, fix
        super().__init__(f"{key}={value!r} {problem}\n{fix}")


def nearest_hint(name: str, candidates: Iterable[object]) -> str:
    """`Nearest: 'x'.` or, where nothing comes close, the list of what there is."""
    names = sorted({str(candidate) for candidate in candidates})
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Nearest: '{matches[0]}'." if matches else f"There are: {', '.join(names) or 'none'}."


def one_of(key: str, value: str, candidates: Iterable[str]) -> str:
    """`value`, which has to be among `candidates`."""
    if value not in (names := list(candidates)):
        raise SweepError(key, value, "is not known here.", nearest_hint(str(value), names))
    return value
