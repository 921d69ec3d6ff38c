"""A linear layer with a low-rank part beside it (LoRA): found by the attributes PEFT gives it, believed when asked."""

# N rows, C outputs, D width, R rank

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

NUM_SHOWN = 3  # rows shown to a layer


@dataclass(frozen=True)
class LowRank:
    """base(rows) + up @ (scale * down(dropout(rows))). up: `[C, R]`."""

    base: nn.Linear
    down: nn.Module
    dropout: nn.Module
    up: Tensor
    scale: float

    def low(self, rows_ND: Tensor) -> Tensor:
        """What `up` is multiplied with, `[N, R]`."""
        return self.scale * self.down(self.dropout(rows_ND))


def low_rank_of(layer: Any) -> LowRank | None:
    """The parts of a layer that has one active low-rank part, and trains nothing beside it; None of any other layer."""
    base, names = getattr(layer, "base_layer", None), getattr(layer, "active_adapters", ())
    if type(base) is not nn.Linear or len(names) != 1 or getattr(layer, "merged", False):
        return None
    [name] = names
    parts = [getattr(layer, part, {}) for part in ("lora_A", "lora_B", "scaling")]
    if any(name not in part for part in parts):
        return None
    down, up, scale = (part[name] for part in parts)
    dropouts = getattr(layer, "lora_dropout", {})
    dropout = dropouts[name] if name in dropouts else nn.Identity()
    known = {id(each) for each in nn.ModuleList([base, down, dropout, up]).parameters()}
    if any(each.requires_grad and id(each) not in known for each in layer.parameters()):
        return None  # DoRA's magnitudes: asked before they have moved, the layer would do as told
    return LowRank(base, down, dropout, up.weight, float(scale))


@torch.no_grad()
def is_as_told(layer: nn.Module, parts: LowRank) -> bool:
    """Whether the layer, out of training, gives of a few rows what its parts say; others do more than that."""
    weight = parts.base.weight
    generator = torch.Generator().manual_seed(0)
    rows_ND = torch.randn(NUM_SHOWN, parts.base.in_features, generator=generator).to(weight)
    was_training = layer.training
    layer.eval()
    found_NC = layer(rows_ND)
    expected_NC = parts.base(rows_ND) + parts.low(rows_ND) @ parts.up.t()
    layer.train(was_training)
    return torch.allclose(found_NC, expected_NC, rtol=1e-2 if weight.dtype.itemsize == 2 else 1e-4, atol=1e-5)
