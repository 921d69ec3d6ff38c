"""Output layers, and the rows that wait before one: logits that nobody has multiplied yet."""

# N rows, C classes (the vocabulary), D width, R rank

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Finish:
    """What a head does to its products: see `Head`."""

    logit_scale: float = 1.0
    soft_cap: float | None = None

    def logits(self, products_NC: Tensor) -> Tensor:
        """Of the products, `[N, C]`; the same tensor where there is nothing to do."""
        z_NC = products_NC if self.logit_scale == 1.0 else self.logit_scale * products_NC
        return z_NC if self.soft_cap is None else self.soft_cap * torch.tanh(z_NC / self.soft_cap)

    def slope(self, logits_NC: Tensor) -> Tensor | float:
        """d logits / d products, where the logits are these."""
        if self.soft_cap is None:
            return self.logit_scale
        return self.logit_scale * (1.0 - (logits_NC / self.soft_cap).square())


@dataclass(frozen=True)
class Head:
    """logits = soft_cap * tanh(z / soft_cap) with z = logit_scale * (hidden @ weight.T + low @ up.T + bias).

    weight: `[C, D]`. bias: `[C]`. soft_cap: a bound of every logit, as Gemma has it; None: z itself. up: `[C, R]`, of a
        low-rank part (LoRA) beside the weight; None: there is none.
    """

    weight: Tensor
    bias: Tensor | None = None
    logit_scale: float = 1.0
    soft_cap: float | None = None
    up: Tensor | None = None

    @property
    def finish(self) -> Finish:
        """What is done to the products."""
        return Finish(self.logit_scale, self.soft_cap)


@dataclass(frozen=True)
class HeadInput:
    """Rows at the head's input, `[N, D]`, and the head. low: what `Head.up` is multiplied with, `[N, R]`."""

    hidden: Tensor
    head: Head
    low: Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def take(self, rows: slice | Tensor) -> HeadInput:
        """Some of the rows, in their order."""
        return replace(self, hidden=self.hidden[rows], low=None if self.low is None else self.low[rows])

    def factors(self) -> tuple[Tensor | None, ...]:
        """All that may have a gradient: rows, weight and bias, then rows and weight of the low-rank part."""
        return self.hidden, self.head.weight, self.head.bias, self.low, self.head.up

    def logits(self) -> Tensor:
        """All of them at once, `[N, C]`."""
        products_NC = F.linear(self.hidden, self.head.weight, self.head.bias)
        if self.low is not None:
            assert self.head.up is not None
            products_NC = products_NC + F.linear(self.low, self.head.up)
        return self.head.finish.logits(products_NC)
