from __future__ import annotations

import os
from typing import Any

import pytest

from potstill.errors import UserError
from potstill.hardware.place import Place, chosen_workers, find_place, launched_place

TORCHRUN = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "WORLD_SIZE": "4"}
SRUN = {
    "SLURM_NTASKS": "8",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NAME": "distil",
}
NAMES = (*TORCHRUN, *SRUN)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def started(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("environment", "num_devices", "num_nodes", "expected"),
    [
        ({}, 1, 1, Place(1, 1, rank=0, is_rank=True)),
        ({}, 4, 1, Place(4, 1, rank=0, is_rank=False)),
        (TORCHRUN, 2, "auto", Place(2, 2, rank=3, is_rank=True)),
        (TORCHRUN, 2, 2, Place(2, 2, rank=3, is_rank=True)),
        (SRUN, 4, "auto", Place(4, 2, rank=5, is_rank=True)),
        (SRUN, 4, 2, Place(4, 2, rank=5, is_rank=True)),
        ({**SRUN, "SLURM_JOB_NAME": "bash"}, 1, 1, Place(1, 1, rank=0, is_rank=True)),  # a terminal on a node
        ({"RANK": "3", "WORLD_SIZE": "4"}, 1, 1, Place(1, 1, rank=0, is_rank=True)),  # of nobody's that is known
    ],
)
def test_a_process_stands_where_its_launcher_put_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], num_devices: int, num_nodes: Any, expected: Place
) -> None:
    started(monkeypatch, environment)
    assert find_place(num_devices, num_nodes) == expected


@pytest.mark.parametrize(
    ("environment", "num_devices", "num_nodes", "key", "fix"),
    [
        ({}, 1, 2, "hardware.num_nodes", "torchrun --nnodes"),
        ({}, 8, "auto", "hardware.num_nodes", "srun --nodes"),
        (TORCHRUN, 2, 1, "hardware.num_nodes", "hardware.num_nodes=auto"),
        (TORCHRUN, 1, "auto", "hardware.devices", "hardware.devices=2"),
        (SRUN, 4, 3, "hardware.num_nodes", "hardware.num_nodes=auto"),
        (SRUN, 2, "auto", "hardware.devices", "hardware.devices=4"),
    ],
)
def test_what_was_not_started_is_refused_with_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    num_devices: int,
    num_nodes: Any,
    key: str,
    fix: str,
) -> None:
    started(monkeypatch, environment)
    with pytest.raises(UserError) as caught:
        find_place(num_devices, num_nodes)
    assert caught.value.key == key
    assert caught.value.value == (num_nodes if key == "hardware.num_nodes" else num_devices)
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("asked", "on_cpu", "ranks", "expected"),
    [(None, True, 1, 0), (None, False, 1, 4), (None, False, 8, 1), (3, True, 1, 3), (0, False, 1, 0)],
)
def test_workers_take_no_core_that_computes(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, on_cpu: bool, ranks: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(16)))
    environment = {"LOCAL_RANK": "0", "WORLD_SIZE": str(ranks), "RANK": "0"} if ranks > 1 else {}
    assert chosen_workers(asked, on_cpu=on_cpu, environment=environment) == expected


def test_only_what_does_not_run_yet_has_to_be_launched() -> None:
    assert Place(2, 1, rank=0, is_rank=False).has_to_launch
    assert not Place(2, 1, rank=1, is_rank=True).has_to_launch
    assert not Place(1, 1, rank=0, is_rank=True).has_to_launch
    assert Place(4, 2, rank=0, is_rank=True).world_size == 8


def test_nobody_started_a_process_of_its_own() -> None:
    assert launched_place() is None
