"""Memory before the start: what the run will need, beside what is there; and the message when it was not enough."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from potstill.config.schema import HardwareConfig, TrainConfig
from potstill.data.batch import Batch
from potstill.data.module import DataModule
from potstill.errors import StoppedError
from potstill.hardware.advice import Settings, advice
from potstill.hardware.memory import Estimate, available_bytes, bytes_of, estimate, gathered_bytes, is_out_of_memory
from potstill.hardware.place import Place, chosen_workers
from potstill.hardware.sharding import blocks
from potstill.module import DistillationModule

log = logging.getLogger(__name__)

ROW_AN_EXAMPLE, MANY_ROWS = (2, 4), (1, 2)  # sample sizes: batch statistics, and terms about pairs, need several rows


@dataclass(frozen=True)
class Preflight:
    """What was found out before the start, in bytes per device.

    free_bytes: for this run, what it holds there already included.
    """

    estimate: Estimate
    free_bytes: int
    settings: Settings


def preflight(config: TrainConfig, module: DistillationModule, data: DataModule, place: Place) -> Preflight:
    """Estimate the memory of one device, log it in one line, and warn where it is more than is free.

    Before the trainer moves, wraps or shards anything. It never refuses: an estimate may be wrong.
    """
    num_ranks = place.world_size
    device, batch = training_device(config.hardware.accelerator), _longest_examples(data)
    longest = batch.inputs["input_ids"][0].numel() if "input_ids" in batch.inputs else None
    settings = _settings(
        config, module, device, num_ranks, longest, _largest_micro_batch(config, data, num_ranks, longest)
    )
    teacher = module.teacher.model if module.teacher else None
    needed = _per_device(_estimate(config, module, batch, teacher, settings.num_examples), module, teacher, settings)
    free = available_bytes(device)
    if device.type == "cpu":
        free = free // place.per_node + _held(module, teacher)  # the ranks of a node share its memory
    log.info(needed.line(free))
    if needed.total > free:
        log.warning("That is more than is free. %s", advice(needed, settings, free))
    return Preflight(needed, free, settings)


def out_of_memory(error: BaseException, before: Preflight | None) -> StoppedError:
    """The message of a run that ran out of memory; `before`: what its preflight found, if it had come."""
    reason = f"Out of memory: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    if before is None:
        return StoppedError(f"{reason}\nModels and data do not fit. Take smaller ones, or teacher.dtype=bfloat16.")
    found = [before.estimate.line(before.free_bytes), advice(before.estimate, before.settings)]
    return StoppedError("\n".join([reason, *found, "What was saved is kept."]))


@contextmanager
def explained(before: Preflight | None = None) -> Iterator[None]:
    """Turns running out of memory inside into a message that says what to change."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise out_of_memory(error, before) from error
        raise


def training_device(accelerator: str) -> torch.device:
    """This rank's device: the accelerator where one is asked for and there, else the CPU."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


def num_workers(hardware: HardwareConfig) -> int:
    """Of a rank's data loader."""
    return chosen_workers(hardware.num_workers, on_cpu=training_device(hardware.accelerator).type == "cpu")


def _largest_micro_batch(config: TrainConfig, data: DataModule, num_ranks: int, longest: int | None) -> float:
    """Examples of the longest length that are as much as the largest micro-batch; a fraction under a token budget."""
    share = -(-min(data.batch_size, data.num_examples("train")) // num_ranks)
    num_examples = min(share, config.hardware.micro_batch_examples or share)
    max_tokens = config.hardware.micro_batch_tokens
    return num_examples if not (max_tokens and longest) else min(num_examples, max(1.0, max_tokens / longest))


def _longest_examples(data: DataModule) -> Batch:
    """A batch of the longest training examples, some of them several times where there are too few."""
    table = data.examples["train"]
    order = np.argsort(-np.asarray(table["length"][:]), kind="stable") if "length" in table.column_names else None
    longest = range(len(table)) if order is None else order.tolist()
    return data.training_batch([longest[i % len(table)] for i in range(max(ROW_AN_EXAMPLE))])


def _estimate(
    config: TrainConfig, module: DistillationModule, batch: Batch, teacher: nn.Module | None, num_examples: float
) -> Estimate:
    device = next(module.student.parameters()).device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.hardware.precision.endswith("-mixed"))

    def run(size: int) -> object:
        piece = batch.take(range(size)).to(device)
        with autocast:
            return module.objective(module.step_of(piece), module.task.count_rows(piece))

    return estimate(
        module.student,
        module.objective,
        teacher_bytes=_size(teacher),
        make_optimizer=module.make_optimizer,
        loss_of=run,
        num_examples=num_examples,
        sizes=MANY_ROWS if module.task.is_causal else ROW_AN_EXAMPLE,
    )


def _per_device(whole: Estimate, module: DistillationModule, teacher: nn.Module | None, settings: Settings) -> Estimate:
    if not settings.sharded:
        return whole
    trained = nn.ModuleList([module.student, module.objective])
    return whole.sharded(
        settings.num_ranks,
        block_bytes=gathered_bytes(trained, blocks(module.student)),
        teacher_block_bytes=gathered_bytes(teacher, blocks(teacher)) if teacher and settings.shard_teacher else None,
        cpu_offload=settings.cpu_offload and settings.on_accelerator,
    )


def _settings(
    config: TrainConfig,
    module: DistillationModule,
    device: torch.device,
    num_ranks: int,
    longest: int | None,
    num_examples: float,
) -> Settings:
    student, hardware = module.student, config.hardware
    supports = isinstance(student, PreTrainedModel) and student.supports_gradient_checkpointing
    return Settings(
        num_examples=num_examples,
        can_cut=not any(isinstance(layer, _BatchNorm) for layer in student.modules()),
        micro_batch_tokens=hardware.micro_batch_tokens,
        longest=longest,
        can_checkpoint=supports and not hardware.activation_checkpointing,
        precision=hardware.precision,
        teacher_dtype=config.teacher.dtype,
        num_ranks=num_ranks,
        num_devices=torch.cuda.device_count() if device.type == "cuda" else 1,
        on_accelerator=device.type != "cpu",
        sharded=hardware.strategy == "fsdp",
        can_shard_teacher=not config.teacher.remember,
        shard_teacher=hardware.shard_teacher,
        cpu_offload=hardware.cpu_offload,
    )


def _size(model: nn.Module | None) -> int:
    return 0 if model is None else bytes_of([*model.parameters(), *model.buffers()])


def _held(module: DistillationModule, teacher: nn.Module | None) -> int:
    """What is in CPU memory already, and so no longer free."""
    return _size(module.student) + _size(module.objective) + _size(teacher)
