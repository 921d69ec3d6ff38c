"""The student as a folder that transformers loads, without potstill."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from potstill.models.hub import quiet
from potstill.models.task import Task

_PREFIX = "student."  # of the student's parameters in a checkpoint of the module


def export(
    student: PreTrainedModel, checkpoint: Path | None, tokenizer: PreTrainedTokenizerBase | None, directory: Path
) -> None:
    """Write the weights of `checkpoint` (None: those the student has) to `directory`, with config and tokenizer.

    The student keeps those weights.
    """
    if checkpoint is not None:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        student.load_state_dict(
            {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        )
    with quiet():
        student.save_pretrained(directory)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)


def load_exported(directory: Path, task: Task) -> PreTrainedModel:
    """What `export` wrote, in eval mode."""
    with quiet():
        return getattr(transformers, task.auto_class).from_pretrained(directory).eval()
