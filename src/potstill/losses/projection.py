"""Maps from the student's width to the teacher's, for losses that compare hidden states."""

# P rows: attended positions `[P, D]`, images `[P, L, D]`, or feature maps `[P, D, H, W]`; D width

from __future__ import annotations

from torch import Tensor, nn

from potstill.losses.precision import loss_dtype


def without_width(hidden: Tensor) -> list[int]:
    """The shape of a hidden state but for its width: what two models must share to be compared."""
    shape = list(hidden.shape)
    del shape[_width_dim(hidden)]
    return shape


def projection(student: Tensor, teacher: Tensor) -> nn.Module:
    """An affine map of each position from the student's width to the teacher's, to be learned.

    A 1x1 convolution for feature maps, else a linear layer; on the device and in the loss dtype of `student`. It starts
    as the identity where the widths are equal, so that equal hidden states have distance 0, else at torch's default.
    """
    widths = student.shape[_width_dim(student)], teacher.shape[_width_dim(teacher)]
    place = {"device": student.device, "dtype": loss_dtype(student.dtype)}
    if student.ndim == 4:
        layer, start = nn.Conv2d(*widths, kernel_size=1, **place), nn.init.dirac_
    else:
        layer, start = nn.Linear(*widths, **place), nn.init.eye_
    if widths[0] == widths[1]:
        start(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    return layer


def _width_dim(hidden: Tensor) -> int:
    return 1 if hidden.ndim == 4 else hidden.ndim - 1
