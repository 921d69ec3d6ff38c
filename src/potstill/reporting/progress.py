"""Progress on the terminal, where there is one; what a command prints stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import track


def tracked(steps: Sequence[Any], what: str) -> Iterable[Any]:
    """`steps`, with a bar on standard error while they are gone through."""
    console = Console(stderr=True)
    return track(steps, what, console=console, transient=True, disable=not console.is_terminal)
