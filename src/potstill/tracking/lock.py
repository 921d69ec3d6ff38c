"""One process writes a run at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from potstill.errors import UserError
from potstill.tracking.storage import not_written


@contextmanager
def locked(run_dir: str | Path, key: str = "run.dir", wait_s: float = 5.0) -> Iterator[None]:
    """Hold the run directory, which must exist, for this process alone. The kernel lets go of it when the process dies.

    wait_s: for a process that was killed and is still being taken down. Raises UserError, naming `key`, where another
    process still has it then, and `StoppedError` where no file can be written in it.
    """
    lock = FileLock(Path(run_dir) / ".lock", thread_local=False)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        fix = "Wait until that process has ended, or end it; what it has saved is kept."
        raise UserError(key, str(run_dir), "is being written by another process.", fix) from error
    except OSError as error:
        raise not_written(Path(lock.lock_file), error) from error
    try:
        yield
    finally:
        lock.release()


def is_locked(run_dir: str | Path) -> bool:
    """Whether a process is writing the run now."""
    path = Path(run_dir) / ".lock"
    if not path.exists():
        return False
    lock = try_lock(path)
    if lock is None:
        return True
    lock.release()
    return False


def try_lock(path: Path) -> FileLock | None:
    """A lock on the file `path`, held until it is released or this process dies; None where another process has it."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock
