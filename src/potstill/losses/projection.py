"""Maps from the student's width to the teacher's, for losses that compare hidden states."""

# P rows: attended positions `[P, D]`, images `[P, L, D]`, or feature maps `[P, D, H, W]`; D width

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from potstill.losses.precision import loss_dtype


def without_width(hidden: Tensor) -> list[int]:
    """The shape of a hidden state but for its width: what two models must share to be compared."""
    shape = list(hidden.shape)
    del shape[_width_dim(hidden)]
    return shape


def width_last(hidden: Tensor) -> Tensor:
    """The hidden state with its width as the last dimension: a feature map as `[P, H, W, D]`."""
    return hidden.movedim(_width_dim(hidden), -1)


def projection(student: Tensor, teacher: Tensor, *, kind: str = "linear") -> nn.Module:
    """A map of each position from the student's width to the teacher's, to be learned; by `kind`:

    linear: affine; a 1x1 convolution for feature maps. It starts as the identity where the widths are equal, so that
        equal hidden states have distance 0, else at torch's default. Romero et al. 2014, arXiv:1412.6550.
    mlp: two affine maps with a GELU between them, at the teacher's width, at torch's default. It can hide more of what
        the student lacks.
    orthogonal: linear without bias, its rows or columns orthonormal throughout training (torch's parametrization): to
        a larger width it keeps lengths and angles, to a smaller one it drops directions. It starts as the identity
        where the widths are equal. Impossible for feature maps, whose kernel is no matrix. Miles et al. 2024,
        arXiv:2403.06213.
    none: the identity.

    On the device and in the loss dtype of `student`.
    """
    return PROJECTORS[kind](student, teacher)


def _linear(student: Tensor, teacher: Tensor) -> nn.Module:
    start = nn.init.dirac_ if student.ndim == 4 else nn.init.eye_
    layer = _affine(student, *_widths(student, teacher))
    if layer.weight.shape[0] == layer.weight.shape[1]:
        start(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    return layer


def _mlp(student: Tensor, teacher: Tensor) -> nn.Module:
    student_width, width = _widths(student, teacher)
    return nn.Sequential(_affine(student, student_width, width), nn.GELU(), _affine(student, width, width))


def _orthogonal(student: Tensor, teacher: Tensor) -> nn.Module:
    assert student.ndim != 4, "a feature map"
    widths = _widths(student, teacher)
    layer = nn.Linear(*widths, bias=False, **_place(student))
    start = nn.init.eye_ if widths[0] == widths[1] else nn.init.orthogonal_
    start(layer.weight)
    return orthogonal(layer)


def _none(student: Tensor, teacher: Tensor) -> nn.Module:  # noqa: ARG001  the others need both
    return nn.Identity()


PROJECTORS: dict[str, Callable[[Tensor, Tensor], nn.Module]] = {
    "linear": _linear,
    "mlp": _mlp,
    "orthogonal": _orthogonal,
    "none": _none,
}


def _affine(student: Tensor, num_in: int, num_out: int) -> nn.Conv2d | nn.Linear:
    if student.ndim == 4:
        return nn.Conv2d(num_in, num_out, kernel_size=1, **_place(student))
    return nn.Linear(num_in, num_out, **_place(student))


def _widths(student: Tensor, teacher: Tensor) -> tuple[int, int]:
    return student.shape[_width_dim(student)], teacher.shape[_width_dim(teacher)]


def _place(student: Tensor) -> dict[str, Any]:
    return {"device": student.device, "dtype": loss_dtype(student.dtype)}


def _width_dim(hidden: Tensor) -> int:
    return 1 if hidden.ndim == 4 else hidden.ndim - 1
