"""How many processes train together, and who starts them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from potstill.errors import UserError

COMMANDS = (
    "On every node: torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=HOST:29500 "
    "--rdzv-id=NAME -m potstill train hardware=multi_node run.name=NAME ... "
    "With SLURM: srun --nodes=2 --ntasks-per-node=8 potstill train hardware=multi_node run.name=NAME ..."
)

MOST_WORKERS = 4  # more than keep up with the smallest model


@dataclass(frozen=True)
class Place:
    """Where this process stands among those that train together.

    per_node: ranks on this node. rank: of this process, 0 where it is the only one or has yet to start the others.
    is_rank: this process is one of them; else it has to start `world_size` others, or is itself the only one.
    """

    per_node: int
    num_nodes: int
    rank: int
    is_rank: bool

    @property
    def world_size(self) -> int:
        return self.per_node * self.num_nodes

    @property
    def has_to_launch(self) -> bool:
        return self.world_size > 1 and not self.is_rank


def find_place(num_devices: int, num_nodes: Any, environment: Mapping[str, str] = os.environ) -> Place:
    """The place that torchrun, srun or `launch` gave this process, else that of one that runs alone.

    num_devices: of this node, as asked for. num_nodes: a number, or `auto`.
    Raises UserError where these are not what was started.
    """
    given = launched_place(environment)
    if given is None:
        if num_nodes != 1:
            raise UserError("hardware.num_nodes", num_nodes, "needs one process a device, on every node.", COMMANDS)
        return Place(num_devices, 1, rank=0, is_rank=num_devices == 1)
    if num_nodes not in ("auto", given.num_nodes):
        problem = f"is not what was started: {given.world_size} processes on {given.num_nodes} nodes."
        raise UserError("hardware.num_nodes", num_nodes, problem, "Set hardware.num_nodes=auto")
    if num_devices != given.per_node:
        problem = f"is not what was started: {given.per_node} processes on this node."
        fix = f"Set hardware.devices={given.per_node}, or start {num_devices} processes a node."
        raise UserError("hardware.devices", num_devices, problem, fix)
    return given


def chosen_workers(asked: int | None, *, on_cpu: bool, environment: Mapping[str, str] = os.environ) -> int:
    """How many processes prepare this rank's batches: as many as were asked for.

    Unasked, a model that computes on the CPU has none beside it, which would take its cores; one on an accelerator has
    a few, of the cores that are this rank's.
    """
    if asked is not None or on_cpu:
        return asked or 0
    given = launched_place(environment)
    cores = len(os.sched_getaffinity(0)) // (given.per_node if given else 1)
    return min(MOST_WORKERS, max(1, cores - 1))


def launched_place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """What torchrun, srun or `launch` says of this process; None where none of them started it."""
    if "LOCAL_RANK" in environment and "WORLD_SIZE" in environment:
        per_node = int(environment.get("LOCAL_WORLD_SIZE", environment["WORLD_SIZE"]))
        return Place(per_node, int(environment["WORLD_SIZE"]) // per_node, int(environment["RANK"]), is_rank=True)
    if SLURMEnvironment.detect():
        num_nodes = int(environment.get("SLURM_NNODES", "1"))
        per_node = int(environment["SLURM_NTASKS"]) // num_nodes
        return Place(per_node, num_nodes, int(environment["SLURM_PROCID"]), is_rank=True)
    return None
