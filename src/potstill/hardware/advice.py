"""What to change in a run that needs more memory than there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from potstill.hardware.memory import Estimate

Remedies = Iterator[tuple[str, str]]


@dataclass(frozen=True)
class Settings:
    """What of a run moves its memory.

    num_examples: of the largest micro-batch. can_cut: into smaller ones (batch normalisation forbids it).
    micro_batch_tokens: the limit in use. longest: tokens of the longest text; None: images.
    can_checkpoint: the student knows activation checkpointing, and it is off.
    can_shard_teacher: a remembered teacher stays whole.
    num_devices: of this machine. on_accelerator: the run's devices are no CPUs.
    """

    num_examples: float
    can_cut: bool
    micro_batch_tokens: int | None
    longest: int | None
    can_checkpoint: bool
    precision: str
    teacher_dtype: str
    num_ranks: int
    num_devices: int
    on_accelerator: bool
    sharded: bool
    can_shard_teacher: bool
    shard_teacher: bool
    cpu_offload: bool


def advice(estimate: Estimate, settings: Settings, free_bytes: int | None = None) -> str:
    """The overrides that lower the need, one a line, most effective first: those against the largest part lead.

    Only what applies and is not in use already. free_bytes: a micro-batch small enough for it is named, not just half.
    """
    causes = (
        (estimate.activations, _less_activations(settings, _fraction(estimate, free_bytes))),
        (estimate.parameters + estimate.gradients + estimate.optimizer, _less_state(settings)),
        (estimate.teacher, _less_teacher(settings)),
    )
    found: dict[str, str] = {}
    for num_bytes, remedies in sorted(causes, key=lambda cause: -cause[0]):
        for override, effect in remedies if num_bytes else ():
            if not any(_key(override) == _key(other) for other in found):
                found[override] = effect
    if not found:
        return "No option of hardware is left that needs less: choose a smaller student or teacher."
    width = max(map(len, found))
    return "\n".join(["Most effective first:", *(f"  {each:{width}}  {effect}" for each, effect in found.items())])


def _key(override: str) -> str:
    """Of the last of several: `hardware.strategy=fsdp hardware.cpu_offload=true` is about offloading."""
    return override.split()[-1].split("=")[0]


def _fraction(estimate: Estimate, free_bytes: int | None) -> float:
    """The largest power of 1/2, below 1, of the activations that fits; 1/2 where none does, or nobody knows."""
    room = 0 if free_bytes is None else free_bytes - (estimate.total - estimate.activations)
    fraction = 0.5
    while room > 0 and estimate.activations * fraction > room:
        fraction /= 2
    return fraction


def _less_activations(settings: Settings, fraction: float) -> Remedies:
    if settings.can_cut and settings.num_examples >= 2:
        effect = f"{fraction:.2g} of the activations in smaller pieces, the same gradient"
        tokens = settings.micro_batch_tokens
        if tokens and settings.longest:
            yield f"hardware.micro_batch_tokens={max(settings.longest, int(tokens * fraction))}", effect
        else:
            yield f"hardware.micro_batch_examples={max(1, int(settings.num_examples * fraction))}", effect
    if settings.can_checkpoint:
        yield "hardware.activation_checkpointing=true", "keeps one tensor a block; a step takes about a third longer"
    if settings.longest and settings.longest > 1:
        yield f"data.max_length={settings.longest // 2}", "cuts the longer texts, in training and in evaluation"
    if settings.precision == "32":
        yield "hardware.precision=bf16-mixed", "about half the activations; losses stay in float32"


def _less_state(settings: Settings) -> Remedies:
    if not settings.sharded and settings.num_ranks > 1:
        yield "hardware.strategy=fsdp", f"parameters, gradients and optimizer over {settings.num_ranks} ranks"
    elif not settings.sharded and settings.on_accelerator and settings.num_devices > 1:
        effect = f"parameters, gradients and optimizer over {settings.num_devices} devices"
        yield "hardware.strategy=fsdp hardware.devices=auto", effect
    if settings.on_accelerator and not settings.cpu_offload:
        start = "" if settings.sharded else "hardware.strategy=fsdp "
        yield f"{start}hardware.cpu_offload=true", "parameters and optimizer in CPU memory; slower"
    if settings.precision != "bf16-true":
        yield "hardware.precision=bf16-true", "half of everything of the student; small updates are lost"


def _less_teacher(settings: Settings) -> Remedies:
    if settings.num_ranks > 1 and settings.can_shard_teacher and not settings.shard_teacher:
        start = "" if settings.sharded else "hardware.strategy=fsdp "
        yield f"{start}hardware.shard_teacher=true", f"the teacher over {settings.num_ranks} ranks"
    if settings.teacher_dtype == "float32":
        yield "teacher.dtype=bfloat16", "half the teacher"
