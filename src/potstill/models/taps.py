"""Taps: outputs of a model's inner modules, by module path, without the model knowing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch._dynamo
from torch import Tensor, nn

from potstill.errors import UserError, nearest_hint

# else a compiled model takes the hooks of its first call for those of every call
torch._dynamo.config.skip_nnmodule_hook_guards = False


def bare(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of `torch.compile` and DistributedDataParallel, which prefix module paths."""
    for attribute in ("_orig_mod", "module"):
        inner = model._modules.get(attribute)
        if inner is not None and len(model._modules) == 1:
            return bare(inner)
    return model


def check_taps(model: nn.Module, paths: Sequence[str], key: str, *, who: str = "student") -> None:
    """UserError under the override `key` where a path names no module of the model. `who`: student or teacher."""
    modules = dict(bare(model).named_modules())
    for path in paths:
        if not path or path not in modules:
            problem = f"names no module of the {who} ({type(bare(model)).__name__})."
            fix = f"{nearest_hint(path, filter(None, modules))} List them: potstill inspect {who}=..."
            raise UserError(key, path, problem, fix)


@contextmanager
def tapped(model: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of the modules at `paths` from the forward passes run inside.

    Where a module returns several values, the first is taken; where it runs several times, the last run counts. The
    hooks are gone afterwards, also after an error.
    """
    outputs: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for path in paths:
            module = bare(model).get_submodule(path)
            hooks.enter_context(module.register_forward_hook(_keep_first(outputs, path)))
        yield outputs


def _keep_first(outputs: dict[str, Tensor], path: str):
    def hook(_module: nn.Module, _args: tuple, output: object) -> None:
        outputs[path] = output if isinstance(output, Tensor) else output[0]  # type: ignore[index]

    return hook


def module_table(model: nn.Module) -> list[tuple[str, str, int]]:
    """(path, class name, number of parameters) of every module that can be tapped, in the model's own order."""
    return [
        (path, type(module).__name__, sum(parameter.numel() for parameter in module.parameters()))
        for path, module in bare(model).named_modules()
        if path
    ]
