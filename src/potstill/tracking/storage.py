"""Files that are whole or absent, whatever becomes of the process, and what to say where the disk is full."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from potstill.errors import StoppedError


@contextmanager
def written_aside(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path` when the block ends; after any error `path` is as it was, and nothing is beside it.

    Its bytes, and then its name, are on the disk before this returns: a rename alone survives a killed process, not a
    lost machine. Temporaries that killed processes left behind are removed.
    """
    remove_stale(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _synchronise(path.parent)


def remove_stale(path: Path) -> None:
    """Remove the temporaries that processes which are gone left beside `path`, of files of its suffix."""
    for other in path.parent.glob(f".*{path.suffix}.*.tmp"):
        match = re.fullmatch(r"\..+\.(\d+)\.tmp", other.name)
        if match and not _is_alive(int(match[1])):
            other.unlink(missing_ok=True)


def not_written(path: Path, error: OSError, num_bytes: int | None = None) -> StoppedError:
    """What to raise where `path` could not be written: why, what it needs, what there is, what is kept."""
    needs = f" It needs {num_bytes / 1e6:.1f} MB." if num_bytes is not None else ""
    return StoppedError(
        f"{path} could not be written: {error.strerror or error}.{needs}{_free(path)}\n"
        "What was saved before is kept. Make room, or the directory writable, and go on from there."
    )


def find_os_error(error: BaseException | None) -> OSError | None:
    """The OSError behind `error`: a writer that fails while it cleans up hides the reason in the context."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _free(path: Path) -> str:
    try:
        return f" Free there: {shutil.disk_usage(path.parent).free / 1e6:.1f} MB."
    except OSError:  # the directory is gone, which the error has said
        return ""


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _synchronise(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
