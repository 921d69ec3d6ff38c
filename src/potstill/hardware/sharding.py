"""Sharding of a model's parameters over ranks (FSDP2), and activation checkpointing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from potstill.errors import UserError


def shard(model: nn.Module, mesh: DeviceMesh, *, cpu_offload: bool = False) -> None:
    """Shard `model` in place, block by block, so that only one block at a time is whole. Once is enough.

    A block is what the architecture says must stay in one piece (`_no_split_modules` of transformers), else an element
    of the longest module list; without either, the model is one block.
    """
    if isinstance(model, FSDPModule) or next(model.parameters(), None) is None:
        return
    policy = CPUOffloadPolicy() if cpu_offload else OffloadPolicy()
    for block in blocks(model):
        fully_shard(block, mesh=mesh, offload_policy=policy)
    fully_shard(model, mesh=mesh, offload_policy=policy)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The parts of a model that can be whole one at a time, in order; none where there are no such.

    A part that shares a parameter with the rest (embeddings with the head) is none: sharding it would part the two.
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    found = [module for module in model.modules() if type(module).__name__ in names]
    found = [block for block in found if not any(block is not other and block in _parts(other) for other in found)]
    if not found:
        lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
        found = list(max(lists, key=len)) if lists else []
    uses = _uses(model)
    return [block for block in found if all(uses[key] == number for key, number in _uses(block).items())]


def join_backward(model: nn.Module, taps: Mapping[str, Tensor]) -> None:
    """Let the gradient of a tap alone, without one of the model's output, reach the shards that the tap lies in.

    FSDP2 gathers and reduces the parameters of a module once a gradient arrives at its output. taps: tensors by path.
    """
    for path, tensor in taps.items():
        names = path.split(".")
        for depth in range(len(names) + 1) if tensor.requires_grad else ():
            module = model.get_submodule(".".join(names[:depth]))
            if isinstance(module, FSDPModule):
                tensor.register_hook(module._get_fsdp_state()._pre_backward)


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Keep only the input of each block for the backward pass, and run the block again there.

    Raises UserError for an architecture that cannot.
    """
    if not model.supports_gradient_checkpointing:
        problem = f"is not to be had: {type(model).__name__} has no support for it."
        fix = "Set hardware.activation_checkpointing=false, and a smaller hardware.micro_batch_examples."
        raise UserError("hardware.activation_checkpointing", True, problem, fix)
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def whole(value: Any, *, keep: bool = True) -> Any:
    """`value` with every sharded tensor in it gathered, on the CPU. All ranks must call it, in the same order.

    keep: False on a rank that has no use for the result: its tensors are let go one by one.
    """
    if isinstance(value, Tensor):
        gathered = value.full_tensor() if isinstance(value, DTensor) else value
        return gathered.detach().cpu() if keep else None
    if isinstance(value, Mapping):
        return {name: whole(inner, keep=keep) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(whole(inner, keep=keep) for inner in value)
    return value


def laid_out_like(value: Tensor, parameter: Tensor) -> Tensor:
    """The whole tensor `value`, sharded as `parameter` is."""
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def load_whole(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a whole state dict into a model that may be sharded."""
    own = model.state_dict()
    model.load_state_dict(
        {name: laid_out_like(value, own[name]) if name in own else value for name, value in state.items()}
    )


def _uses(module: nn.Module) -> Counter[int]:
    """How often each parameter, by identity, occurs in the module."""
    return Counter(id(parameter) for _, parameter in module.named_parameters(remove_duplicate=False))


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    return (part for part in module.modules() if part is not module)
