"""The student as it would be served in 8 bits."""

from __future__ import annotations

import copy
import importlib.util
import logging
from itertools import chain

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from potstill.errors import UserError

INSTALL = "pip install 'potstill[quantised]'"


def quantised(model: nn.Module) -> nn.Module:
    """A copy whose linear layers multiply in int8: weights once, activations as they come (torchao's dynamic int8).

    An output layer that shares its weight with the embedding stays as it is: in 8 bits it would be a second one.
    Raises UserError where torchao is not installed, and where the model has no linear layer to begin with.
    """
    if importlib.util.find_spec("torchao") is None:
        raise UserError("quantised", True, "needs torchao, which is not installed.", f"{INSTALL}, or quantised=false")
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it tells of every kernel that was built for a GPU
    from torchao.quantization import (  # type: ignore[import-not-found]
        Int8DynamicActivationInt8WeightConfig,
        quantize_,
    )

    copied = _with_linear(copy.deepcopy(model))
    embedded = {id(module.weight) for module in copied.modules() if isinstance(module, nn.Embedding)}
    chosen = {
        module for module in copied.modules() if isinstance(module, nn.Linear) and id(module.weight) not in embedded
    }
    if not chosen:
        problem = f"finds no linear layer in a {type(model).__name__}: the column would be the student itself."
        raise UserError("quantised", True, problem, "Set quantised=false")
    quantize_(copied, Int8DynamicActivationInt8WeightConfig(), filter_fn=lambda module, _name: module in chosen)
    return copied


def _with_linear(model: nn.Module) -> nn.Module:
    """GPT-2's own kind of linear layer, its weight transposed, as the kind that everybody knows. Changes `model`."""
    for path, layer in list(model.named_modules()):
        if isinstance(layer, Conv1D):
            num_inputs, num_outputs = layer.weight.shape
            linear = nn.Linear(num_inputs, num_outputs)
            linear.weight, linear.bias = nn.Parameter(layer.weight.detach().T.contiguous()), layer.bias
            model.set_submodule(path, linear.eval())
    return model


def is_quantised(model: nn.Module) -> bool:
    return any(_parts(parameter) for parameter in model.parameters())


def stored_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers as they are stored: of a quantised weight, the tensors that it is made of."""
    return sum(map(_bytes, chain(model.parameters(), model.buffers())))


def _bytes(tensor: Tensor) -> int:
    parts = _parts(tensor)
    return sum(map(_bytes, parts)) if parts else tensor.numel() * tensor.element_size()


def _parts(tensor: Tensor) -> list[Tensor]:
    """The tensors that a quantised one is made of; none of any other."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return []
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return [part for name in names if (part := getattr(tensor, name)) is not None]
