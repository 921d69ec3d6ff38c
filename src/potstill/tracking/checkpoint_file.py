"""Checkpoints as one file that is whole or absent, and that runs no code when it is read."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor
from typing_extensions import override

from potstill.errors import UserError
from potstill.tracking.storage import find_os_error, not_written, written_aside


class CheckpointFile(CheckpointIO):
    """What the trainer writes and reads checkpoints with.

    Not Lightning's own: that holds the checkpoint in memory twice, does not synchronise, and unpickles.
    key: what a user would type to name a checkpoint; errors name it.
    """

    def __init__(self, key: str = "--resume") -> None:
        self.key = key

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Raises `StoppedError` where the disk does not take it; the file that was there before then still is."""
        if storage_options is not None:
            raise TypeError("A checkpoint file has no storage options.")
        path = Path(path)
        try:
            path.parent.mkdir(exist_ok=True)
            with written_aside(path) as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's writer: RuntimeError over the OSError
            if reason := find_os_error(error):
                raise not_written(path, reason, num_bytes(checkpoint)) from error
            raise

    @override
    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable | torch.device | str | dict | None = "cpu",
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Raises UserError for a file that is absent, torn or no checkpoint, and for one that would run code."""
        path = Path(path)
        if problem := _not_whole(path):
            raise self._refused(path, problem)
        try:
            content = torch.load(path, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError as error:
            problem = "holds more than tensors and plain values. Reading it could run any program, so it is not read."
            raise self._refused(path, problem) from error
        except (RuntimeError, ValueError, LookupError) as error:  # an archive of something else
            raise self._refused(path, f"cannot be read: {str(error).splitlines()[0]}") from error
        if not isinstance(content, dict) or "state_dict" not in content:
            raise self._refused(path, "is no checkpoint of a training: it has no `state_dict`.")
        return content

    @override
    def remove_checkpoint(self, path: str | Path) -> None:
        Path(path).unlink(missing_ok=True)

    def _refused(self, path: Path, problem: str) -> UserError:
        others = sorted(str(other) for other in path.parent.glob("*.ckpt") if other != path)
        fix = f"Beside it: {', '.join(others)}" if others else "There is no other checkpoint beside it."
        return UserError(self.key, str(path), problem, fix)


def num_bytes(checkpoint: Any) -> int:
    """Of all tensors in nested mappings and sequences; one that occurs twice is stored once."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in _tensors(checkpoint)
    }
    return sum(storages.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _not_whole(path: Path) -> str:
    """Why `path` cannot be what was saved there; else nothing. torch itself does not look at the checksums."""
    if not path.is_file():
        return "does not exist."
    if path.stat().st_size == 0:
        return "is empty: nothing was saved in it."
    try:
        with zipfile.ZipFile(path) as archive:
            is_changed = archive.testzip() is not None
    except zipfile.BadZipFile:  # its table of contents stands at the end
        return "is torn, or no checkpoint at all."
    return "was changed since it was saved: its checksums are wrong." if is_changed else ""
