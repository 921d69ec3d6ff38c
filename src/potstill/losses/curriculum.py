"""A temperature that is learned against the student."""

# N rows, C classes (or vocabulary)

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from potstill.losses.divergence import forward_kl


def curriculum_kl(
    student_NC: Tensor, teacher_NC: Tensor, temperature: Tensor, *, reversal: float, t2_scaling: bool = True
) -> Tensor:
    """KL(teacher || student) at a temperature that climbs where the student descends, in nats, one a row, `[N]`.

    d_n = forward_kl_n(T), T = min + (max - min) * sigmoid(parameter), whose gradient is taken times -reversal

    The student makes the value smaller, the temperature makes it larger: an optimizer that minimises both finds the
    temperature hardest to imitate. `reversal` says how much of that: from 0, a temperature that stands still, to 1; the
    paper raises it along half a cosine, from easy to hard. `temperature` is `bounded(...)`, `[1]`.

    Source: Li et al. 2022 (CTKD), section 3, arXiv:2211.16231: a temperature for all rows ("global"). The constants are
    those of the authors' CIFAR-100 script: bounds 1 and 21 (t_start 1, t_end 20 is what is added at most), reversal
    from 0 to 1 along half a cosine over the first 10 of 240 epochs; the parameter starts at 1 there. Agrees with their
    code, which has T^2 in its gradient too.
    """
    reversed_temperature: Any = _Reversal.apply(temperature, reversal)
    return forward_kl(student_NC, teacher_NC, temperature=reversed_temperature, t2_scaling=t2_scaling)


def bounded(parameter: Tensor, lowest: float, highest: float) -> Tensor:
    """A number between `lowest` and `highest`, differentiable in `parameter`."""
    return lowest + (highest - lowest) * parameter.sigmoid()


class _Reversal(torch.autograd.Function):
    """The identity, whose gradient comes back times -`reversal`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, reversal: float) -> Tensor:
        ctx.reversal = reversal
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.reversal * gradient, None
