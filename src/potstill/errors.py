"""Errors whose message is all there is to say. Everything else is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130  # exit codes, of the command line and of a rank

MAX_COLUMNS = 100  # of an error


class UserError(ValueError):
    """Bad input: what was given, what follows from it, and how to mend it.

    Shown without a traceback; the command leaves with exit code 2.

    `key` is the override path the user would type (`loss.term.kd.temperature`), `value` what stands there,
    `problem` says what is wrong and what would happen, `fix` what to do, ideally a command.
    """

    def __init__(self, key: str, value: object, problem: str, fix: str) -> None:
        self.key, self.value, self.problem, self.fix = key, value, problem, fix
        super().__init__(f"{key}={value!r} {problem}\n{fix}")


class StoppedError(RuntimeError):
    """A run that cannot go on, for a reason outside of the program: no space, no memory, a loss that is not finite.

    Its message says what happened, what is kept and what to do. Shown without a traceback; exit code 1.
    """


class DivergedError(StoppedError):
    """A loss or a gradient is not finite.

    is_late: noticed at a later step; the weights are those before the bad one, and all else has gone on.
    """

    def __init__(self, message: str, *, is_late: bool = False) -> None:
        super().__init__(message)
        self.is_late = is_late


class PrunedError(StoppedError):
    """A trial that its study ended early. metrics: of its last validation."""

    def __init__(self, message: str, metrics: dict[str, float]) -> None:
        super().__init__(message)
        self.metrics = metrics


def readable(error: UserError | StoppedError) -> str:
    """Its message, wrapped between words only: paths and commands stay whole, to be copied."""
    wrapper = textwrap.TextWrapper(MAX_COLUMNS, break_long_words=False, break_on_hyphens=False)
    lines = "\n".join([str(error), *getattr(error, "__notes__", ())]).splitlines()
    return "\n".join(wrapper.fill(line) for line in lines)


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The candidate most like `name`, or the empty string where nothing comes close."""
    matches = difflib.get_close_matches(str(name), [str(candidate) for candidate in candidates], n=1, cutoff=0.5)
    return matches[0] if matches else ""


def nearest_hint(name: str, candidates: Iterable[str]) -> str:
    """`Nearest: 'x'. ` or, where nothing comes close, the list of what there is."""
    names = sorted({str(candidate) for candidate in candidates})
    match = nearest(name, names)
    return f"Nearest: '{match}'." if match else f"There are: {', '.join(names) or 'none'}."
