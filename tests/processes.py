"""Processes to be killed, stopped or counted, that begin with potstill imported: those seconds are paid once.

They are forked from a process that has imported the commands and done nothing else. What a start from nothing is like,
tests/test_packaging.py and tests/integration/test_wrong_input.py show.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_FORKS = get_context("forkserver")
_FORKS.set_forkserver_preload(["potstill.commands.train", "potstill.commands.sweep_job"])


@contextmanager
def started(
    function: Callable[..., Any],
    *arguments: Any,
    shown: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[BaseProcess]:
    """A process in this directory that leaves with what `function`, of a module, returns; in the end it is gone.

    shown: the file that gets what it prints. environment: all of it, where it is not this one.
    """
    known = dict(os.environ if environment is None else environment)
    known.pop("WANDB_SERVICE", None)  # ours would outlive it
    process = _FORKS.Process(target=_call, args=(Path.cwd(), known, shown or os.devnull, function, arguments))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def command_line(*arguments: str) -> int:
    """`potstill ARGUMENTS`, to be started."""
    from potstill.cli import main

    return main(arguments)


def _call(directory: Path, known: dict[str, str], shown: Path | str, function: Callable[..., Any], given: Any) -> None:
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(known)
    with open(shown, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(function(*given))
