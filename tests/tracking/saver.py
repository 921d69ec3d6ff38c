"""Checkpoints saved as fast as can be, by a process that is to be killed; without pytest, so that it begins at once."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from potstill.tracking.checkpoint_file import CheckpointFile


def save_for_ever(path: Path, num_values: int) -> None:
    """Each checkpoint holds one value, so many times, and no two the same."""
    for value in itertools.count():
        content = {"state_dict": {"w": torch.full((num_values,), float(value))}}
        CheckpointFile().save_checkpoint(content, path)
