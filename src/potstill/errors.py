"""Errors that are the user's to mend. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: what was given, what follows from it, and how to mend it.

    Shown without a traceback; the command leaves with exit code 2.

    `key` is the override path the user would type (`loss.term.kd.temperature`), `value` what stands there,
    `problem` says what is wrong and what would happen, `fix` what to do, ideally a command.
    """

    def __init__(self, key: str, value: object, problem: str, fix: str) -> None:
        self.key, self.value, self.problem, self.fix = key, value, problem, fix
        super().__init__(f"{key}={value!r} {problem}\n{fix}")


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The candidate most like `name`, or the empty string where nothing comes close."""
    matches = difflib.get_close_matches(str(name), [str(candidate) for candidate in candidates], n=1, cutoff=0.5)
    return matches[0] if matches else ""


def nearest_hint(name: str, candidates: Iterable[str]) -> str:
    """`Nearest: 'x'. ` or, where nothing comes close, the list of what there is."""
    names = sorted({str(candidate) for candidate in candidates})
    match = nearest(name, names)
    return f"Nearest: '{match}'." if match else f"There are: {', '.join(names) or 'none'}."
