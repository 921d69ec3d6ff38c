"""The student as it would be served in 8 bits."""

from __future__ import annotations

import copy
import importlib.util
import logging
from itertools import chain

from torch import Tensor, nn

from potstill.errors import UserError

INSTALL = "pip install 'potstill[quantised]'"


def quantised(model: nn.Module) -> nn.Module:
    """A copy whose linear layers multiply in int8: weights once, activations as they come (torchao's dynamic int8).

    Raises UserError where torchao is not installed.
    """
    if importlib.util.find_spec("torchao") is None:
        raise UserError("quantised", True, "needs torchao, which is not installed.", f"{INSTALL}, or quantised=false")
    logging.getLogger("torchao").setLevel(logging.ERROR)  # it tells of every kernel that was built for a GPU
    from torchao.quantization import (  # type: ignore[import-not-found]
        Int8DynamicActivationInt8WeightConfig,
        quantize_,
    )

    copied = copy.deepcopy(model)
    quantize_(copied, Int8DynamicActivationInt8WeightConfig())
    return copied


def stored_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers as they are stored: of a quantised weight, the tensors that it is made of."""
    return sum(map(_bytes, chain(model.parameters(), model.buffers())))


def _bytes(tensor: Tensor) -> int:
    if not hasattr(tensor, "__tensor_flatten__"):
        return tensor.numel() * tensor.element_size()
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return sum(_bytes(getattr(tensor, name)) for name in names if getattr(tensor, name) is not None)
