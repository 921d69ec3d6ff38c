"""potstill cache list|verify|prune DIR: what is kept below a directory, whether it is whole, and what may go."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from potstill.errors import DONE, FAILED, UserError, nearest_hint
from potstill.signals.cache import FORMAT, MANIFEST, caches_in, name_of, read_manifest
from potstill.signals.shard import SUFFIX, DamagedError, Shard
from potstill.tracking.lock import try_lock
from potstill.tracking.storage import remove_stale

log = logging.getLogger(__name__)

SECONDS_A_DAY = 86_400.0


def main(words: Sequence[str]) -> int:
    """Returns the exit code. words: what is to be done, the directory, and options."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout, force=True)
    action, *rest = words
    options = dict(text.split("=", 1) for text in rest if "=" in text and not Path(text).exists())
    paths = [Path(text) for text in rest if text.split("=", 1)[0] not in options]
    if len(paths) != 1 or not paths[0].is_dir():
        given = " ".join(map(str, paths)) or None
        raise UserError("DIR", given, "is no directory of caches.", f"potstill cache {action} runs/signals")
    unknown = options.keys() - ({"unused_days"} if action == "prune" else set())
    if unknown:
        name = sorted(unknown)[0]
        hint = nearest_hint(name, ("unused_days",) if action == "prune" else ())
        raise UserError(name, options[name], f"is no option of potstill cache {action}.", hint)
    if action == "list":
        return list_caches(paths[0])
    return verify(paths[0]) if action == "verify" else prune(paths[0], _days(options.get("unused_days")))


def list_caches(root: Path) -> int:
    """A line a cache: how much there is, what a row takes, and how much of each row's probability that keeps."""
    for directory in caches_in(root):
        shards, damaged = opened(directory)
        sums: Counter[str] = Counter()
        for shard in shards:
            sums.update(shard.header["sums"])
        parts = read_manifest(directory)["bytes_per_row"] if (directory / MANIFEST).exists() else {}
        kept = ", ".join(
            f"{part} {taken:g} bytes a row, {sums[f'mass/{part}'] / max(1.0, sums[f'rows/{part}']):.4f} of it kept"
            for part, taken in parts.items()
        )
        num_examples = len({key for shard in shards for key in shard.keys})
        megabytes = sum(shard.num_bytes for shard in shards) / 1e6
        unused = f"unused for {_unused_days(directory):.1f} days"
        faults = f", {len(damaged)} damaged files" if damaged else ""
        log.info("%s: %d examples, %.1f MB; %s; %s%s", directory, num_examples, megabytes, kept, unused, faults)
    return DONE


def verify(root: Path) -> int:
    """Read everything. FAILED where anything is not what was written."""
    faults = []
    for directory in caches_in(root):
        shards, damaged = opened(directory)
        faults += damaged
        for shard in shards:
            faults += _damaged_records(shard)
        faults += _strangers(directory, shards)
        log.info("%s: %d files, %d records", directory, len(shards), sum(len(shard.keys) for shard in shards))
    for fault in faults:
        log.error("%s", fault)
    if not faults:
        log.info("All is as it was written.")
        return DONE
    log.info("%d faults. Nothing of them is ever served; potstill cache prune %s removes them.", len(faults), root)
    return FAILED


def prune(root: Path, unused_days: float | None) -> int:
    """Remove what can be of no use: damaged files, caches of other formats, and those unused for so many days."""
    for directory in caches_in(root):
        if unused_days is not None and _unused_days(directory) > unused_days:
            _remove(directory, f"unused for {_unused_days(directory):.1f} days")
        elif _is_foreign(directory):
            _remove(directory, "of another format, or it does not say whose signals it holds")
        else:
            _remove_damaged(directory)
    return DONE


def opened(directory: Path) -> tuple[list[Shard], list[str]]:
    """The files that are whole, and what is wrong with the others."""
    shards, damaged = [], []
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        try:
            shards.append(Shard(path))
        except DamagedError as error:
            damaged.append(str(error))
    return shards, damaged


def _damaged_records(shard: Shard) -> list[str]:
    faults = []
    for number in range(len(shard.keys)):
        try:
            shard.read(number)
        except DamagedError as error:
            faults.append(str(error))
    return faults


def _strangers(directory: Path, shards: Sequence[Shard]) -> list[str]:
    """A manifest that belongs elsewhere, and files that were moved here from another cache."""
    faults = [f"{shard.path}: of the cache {shard.header['cache']}" for shard in shards if _is_elsewhere(shard)]
    try:
        expected = name_of(read_manifest(directory)["identity"])
    except UserError as error:
        return [*faults, str(error)]
    return [*faults, *([f"{directory / MANIFEST}: of the cache {expected}"] if expected != directory.name else [])]


def _is_elsewhere(shard: Shard) -> bool:
    return shard.header["cache"] != shard.path.parent.name


def _is_foreign(directory: Path) -> bool:
    try:
        return read_manifest(directory)["identity"].get("format") != FORMAT
    except UserError:
        return True


def _remove(directory: Path, why: str) -> None:
    num_bytes = sum(path.stat().st_size for path in directory.iterdir())
    shutil.rmtree(directory)
    log.info("Removed %s (%.1f MB): %s", directory, num_bytes / 1e6, why)


def _remove_damaged(directory: Path) -> None:
    """A file with any fault, whole: what was good in it is asked again."""
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        try:
            shard = Shard(path)
            faults = _damaged_records(shard) or _is_elsewhere(shard)
        except DamagedError:
            faults = True
        if faults:
            path.unlink()
            log.info("Removed %s: damaged", path)
    remove_stale(directory / f"any{SUFFIX}")
    for path in directory.glob("*.lock"):
        lock = try_lock(path)
        if lock is not None:
            lock.release()
            path.unlink(missing_ok=True)


def _unused_days(directory: Path) -> float:
    newest = max(path.stat().st_mtime for path in directory.iterdir())
    return max(0.0, time.time() - newest) / SECONDS_A_DAY


def _days(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise UserError("unused_days", text, "is no number.", "For example: unused_days=30") from error
