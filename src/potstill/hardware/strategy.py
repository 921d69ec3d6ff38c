"""How ranks share the work: Lightning's strategies, with one form of checkpoint for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from potstill.hardware.sharding import laid_out_like, load_whole, whole

STRATEGIES = ("auto", "ddp", "fsdp")


def make_strategy(name: str, world_size: int, *, on_cpu: bool, has_unused_parameters: bool = False) -> Strategy | str:
    """The Lightning strategy called `name`; `auto` is ddp where there is more than one rank."""
    # counts of rows, and parameters in CPU memory, go from host to host
    backend = "gloo" if on_cpu else "cpu:gloo,cuda:nccl"
    if name == "fsdp":
        return ShardedStrategy(world_size, backend)
    if world_size == 1:
        return "auto"
    return DDPStrategy(
        find_unused_parameters=has_unused_parameters,  # without need, a walk through the graph every step
        gradient_as_bucket_view=True,
        process_group_backend=backend,
    )


class ShardedStrategy(ModelParallelStrategy):
    """FSDP2 over all ranks. Checkpoints hold whole tensors in the form every other strategy reads and writes.

    Lightning's own loading numbers the optimizer's parameters in the order of the model, not in that of the parameter
    groups: the state of a checkpoint from one process would reach other parameters.
    """

    def __init__(self, world_size: int, process_group_backend: str) -> None:
        super().__init__(
            data_parallel_size=world_size,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
        )

    @property
    @override
    def lightning_restore_optimizer(self) -> bool:
        return True

    @override
    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return whole(self.lightning_module.state_dict(), keep=self.is_global_zero)

    @override
    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        return whole(inner.state_dict(), keep=self.is_global_zero)

    @override
    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    @override
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        load_whole(self.lightning_module, checkpoint["state_dict"])

    @override
    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            optimizer.load_state_dict(_laid_out(state, optimizer))


def _laid_out(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]

    def placed(number: int, value: Any) -> Any:
        return laid_out_like(value, owners[number]) if isinstance(value, Tensor) else value

    owners: dict[int, torch.Tensor] = dict(zip(numbers, parameters, strict=True))
    own = {
        number: {name: placed(number, value) for name, value in kept.items()} for number, kept in state["state"].items()
    }
    return {**state, "state": own}
