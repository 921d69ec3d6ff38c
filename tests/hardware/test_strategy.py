"""Which strategy a name gives. What they do to checkpoints and gradients: tests/integration/test_ranks.py."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from potstill.hardware.sharding import shard
from potstill.hardware.strategy import ShardedStrategy, make_strategy


@pytest.mark.parametrize("name", ["auto", "ddp"])
def test_one_process_needs_no_strategy_and_more_get_replicas(name: str) -> None:
    assert make_strategy(name, 1, on_cpu=True) == "auto"
    strategy = make_strategy(name, 2, on_cpu=True)
    assert type(strategy) is DDPStrategy


@pytest.mark.parametrize("has_unused", [True, False])
def test_replicas_look_for_unused_parameters_only_where_there_are_some(has_unused: bool) -> None:
    strategy = make_strategy("ddp", 2, on_cpu=True, has_unused_parameters=has_unused)
    assert isinstance(strategy, DDPStrategy)
    assert strategy._ddp_kwargs["find_unused_parameters"] is has_unused


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
@pytest.mark.parametrize(("on_cpu", "backend"), [(True, "gloo"), (False, "cpu:gloo,cuda:nccl")])
def test_ranks_talk_over_what_their_devices_have_and_hosts_of_counts(name: str, on_cpu: bool, backend: str) -> None:
    strategy: Any = make_strategy(name, 2, on_cpu=on_cpu)
    assert strategy.process_group_backend == backend


def test_sharding_over_one_rank_is_still_sharding() -> None:
    assert isinstance(make_strategy("fsdp", 1, on_cpu=True), ShardedStrategy)


def stepped(model: nn.Module) -> torch.optim.Optimizer:
    """Groups in another order than the model's, so that numbers of parameters differ from places in the model."""
    groups = [{"params": [model.bias], "weight_decay": 0.0}, {"params": [model.weight], "weight_decay": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)  # type: ignore[arg-type]
    model(torch.arange(6.0).view(2, 3)).square().sum().backward()
    optimizer.step()
    return optimizer


def test_optimizer_states_go_between_one_process_and_shards_by_group_and_not_by_place(mesh: DeviceMesh) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(3, 4)
    sharded = copy.deepcopy(plain)
    shard(sharded, mesh)
    expected = stepped(plain)
    optimizer = stepped(sharded)
    strategy = make_strategy("fsdp", 1, on_cpu=True)
    assert isinstance(strategy, ShardedStrategy)

    saved = strategy.optimizer_state(optimizer)
    for number, kept in expected.state_dict()["state"].items():
        for name, value in kept.items():
            assert not isinstance(saved["state"][number][name], DTensor)
            torch.testing.assert_close(saved["state"][number][name], value)

    optimizer.state.clear()
    strategy.optimizers = [optimizer]
    strategy.load_optimizer_state_dict({"optimizer_states": [expected.state_dict()]})
    moment = optimizer.state[sharded.weight]["exp_avg"]
    assert isinstance(moment, DTensor)
    torch.testing.assert_close(moment.full_tensor(), expected.state[plain.weight]["exp_avg"])
    assert not isinstance(optimizer.state[sharded.weight]["step"], DTensor)
