"""The student as a folder that transformers loads, without potstill."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from potstill.distributed import rank
from potstill.hardware.sharding import load_whole, whole
from potstill.models.hub import quiet
from potstill.models.pooling import write_modules
from potstill.models.task import Task

_PREFIX = "student."  # of the student's parameters in a checkpoint of the module


def export(
    student: PreTrainedModel,
    checkpoint: Path | None,
    tokenizer: PreTrainedTokenizerBase | None,
    directory: Path,
    sentence_length: int | None = None,
) -> None:
    """Write the weights of `checkpoint` (None: those the student has) to `directory`, with config and tokenizer.

    sentence_length: of a sentence encoder, in tokens: what it reads of a text when sentence-transformers loads it.
    The student keeps those weights. To be called on every rank; the first writes.
    """
    if checkpoint is not None:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        own = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        load_whole(student, own)
    weights = whole(student.state_dict(), keep=rank() == 0)
    if rank() > 0:
        return
    with quiet():
        student.save_pretrained(directory, state_dict=weights)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory)
    if sentence_length is not None:
        write_modules(student.config, sentence_length, directory)


def load_exported(directory: Path, task: Task) -> PreTrainedModel:
    """What `export` wrote, in eval mode."""
    with quiet():
        return getattr(transformers, task.auto_class).from_pretrained(directory).eval()
