from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from potstill.hardware.advice import Settings, advice
from potstill.hardware.memory import Estimate

ACTIVATIONS = Estimate(parameters=10, gradients=10, optimizer=20, teacher=30, activations=1000)
STATE = Estimate(parameters=1000, gradients=1000, optimizer=2000, teacher=30, activations=100)
TEACHER = Estimate(parameters=10, gradients=10, optimizer=20, teacher=5000, activations=1000)
TEXT_ON_GPUS = Settings(
    num_examples=32,
    can_cut=True,
    micro_batch_tokens=None,
    longest=128,
    can_checkpoint=True,
    precision="32",
    teacher_dtype="float32",
    num_ranks=2,
    num_devices=2,
    on_accelerator=True,
    sharded=False,
    can_shard_teacher=True,
    shard_teacher=False,
    cpu_offload=False,
)


def overrides(estimate: Estimate, free_bytes: int | None = None, **changes: Any) -> list[str]:
    """What the advice says to type, in its order."""
    lines = advice(estimate, dataclasses.replace(TEXT_ON_GPUS, **changes), free_bytes).splitlines()
    return [line.strip().split("  ")[0] for line in lines[1:]]


@pytest.mark.parametrize(
    ("estimate", "changes", "first"),
    [
        (ACTIVATIONS, {}, "hardware.micro_batch_examples=16"),
        (ACTIVATIONS, {"micro_batch_tokens": 4096}, "hardware.micro_batch_tokens=2048"),
        (ACTIVATIONS, {"num_examples": 1}, "hardware.activation_checkpointing=true"),
        (ACTIVATIONS, {"can_cut": False, "can_checkpoint": False}, "data.max_length=64"),
        (ACTIVATIONS, {"can_cut": False, "can_checkpoint": False, "longest": None}, "hardware.precision=bf16-mixed"),
        (STATE, {}, "hardware.strategy=fsdp"),
        (STATE, {"num_ranks": 1}, "hardware.strategy=fsdp hardware.devices=auto"),
        (STATE, {"num_ranks": 1, "num_devices": 1}, "hardware.strategy=fsdp hardware.cpu_offload=true"),
        (STATE, {"sharded": True}, "hardware.cpu_offload=true"),
        (STATE, {"sharded": True, "cpu_offload": True}, "hardware.precision=bf16-true"),
        (STATE, {"num_ranks": 1, "num_devices": 1, "on_accelerator": False}, "hardware.precision=bf16-true"),
        (TEACHER, {"sharded": True}, "hardware.shard_teacher=true"),
        (TEACHER, {}, "hardware.strategy=fsdp hardware.shard_teacher=true"),
        (TEACHER, {"can_shard_teacher": False}, "teacher.dtype=bfloat16"),
        (TEACHER, {"num_ranks": 1}, "teacher.dtype=bfloat16"),
        (TEACHER, {"sharded": True, "shard_teacher": True}, "teacher.dtype=bfloat16"),
    ],
)
def test_what_helps_most_comes_first(estimate: Estimate, changes: dict[str, Any], first: str) -> None:
    assert overrides(estimate, **changes)[0] == first


USED = {
    "micro_batch_examples": {"num_examples": 1},
    "activation_checkpointing": {"can_checkpoint": False},
    "max_length": {"longest": None},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "hardware.strategy=fsdp": {"sharded": True},
    "cpu_offload": {"cpu_offload": True},
    "shard_teacher": {"shard_teacher": True},
    "teacher.dtype": {"teacher_dtype": "bfloat16"},
}


@pytest.mark.parametrize("name", USED)
@pytest.mark.parametrize("estimate", [ACTIVATIONS, STATE, TEACHER])
def test_what_is_in_use_or_of_no_use_is_not_advised(name: str, estimate: Estimate) -> None:
    named = [override for override in overrides(estimate) if name in override]
    left = [override for override in overrides(estimate, **USED[name]) if name in override]
    assert named or name == "bf16-mixed"
    assert left == []


def test_no_option_is_given_two_values() -> None:
    for estimate in (ACTIVATIONS, STATE, TEACHER):
        options = [override.split()[-1].split("=")[0] for override in overrides(estimate)]
        assert len(options) == len(set(options))


def test_no_advice_for_what_is_not_there() -> None:
    without_teacher = dataclasses.replace(ACTIVATIONS, teacher=0)
    assert not any("teacher" in override for override in overrides(without_teacher))


@pytest.mark.parametrize(("free_bytes", "size"), [(1060, 16), (500, 8), (140, 2), (75, 1), (30, 16), (None, 16)])
def test_the_micro_batch_that_is_named_fits_where_one_does(free_bytes: int | None, size: int) -> None:
    assert overrides(ACTIVATIONS, free_bytes)[0] == f"hardware.micro_batch_examples={size}"


def test_a_token_budget_leaves_room_for_the_longest_text() -> None:
    assert overrides(ACTIVATIONS, micro_batch_tokens=160, num_examples=2)[0] == "hardware.micro_batch_tokens=128"


def test_where_nothing_is_left_it_is_said() -> None:
    last = {"num_examples": 1, "can_checkpoint": False, "longest": None, "precision": "bf16-true", "num_ranks": 1}
    last |= {"num_devices": 1, "on_accelerator": False, "teacher_dtype": "bfloat16"}
    assert "smaller student or teacher" in advice(ACTIVATIONS, dataclasses.replace(TEXT_ON_GPUS, **last))
