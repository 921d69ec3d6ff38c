"""The three matrix products of an output layer, chunk by chunk: logits, and the gradients of its input and weight.

Factors of 16 bits are multiplied as they are where the device can add up in float32 (`mm` with `out_dtype`), which CPUs
cannot: there the weight is turned into float32, a block of classes at a time. With logits of 16 bits everything is,
but the sum that is the weight's gradient.
"""

# N rows of a chunk, C classes (the vocabulary), D width, R rank of what may stand beside the weight

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from potstill.losses.heads import Head, HeadInput

CONVERTED_BYTES = {"cpu": 2**22, "cuda": 2**24}  # of a weight, or of its gradient, in another dtype at a time


@dataclass
class Products:
    """Of the rows before one head. factor_dtype: in which they and the weight are multiplied. logits_dtype: into which.

    hidden, weight, low, up: in `factor_dtype` already, but for a weight that is converted a block at a time.
    """

    head: Head
    hidden: Tensor
    weight: Tensor
    factor_dtype: torch.dtype
    logits_dtype: torch.dtype
    low: Tensor | None = None
    up: Tensor | None = None
    buffer: Tensor | None = None

    @classmethod
    def of(cls, rows: HeadInput, logits_dtype: torch.dtype) -> Products:
        """Under autocast in its dtype, else in what holds both factors; float64 stays float64."""
        hidden, weight = rows.hidden.detach(), rows.head.weight.detach()
        device = hidden.device.type
        factor_dtype = torch.promote_types(hidden.dtype, weight.dtype)
        if factor_dtype == torch.float64:
            logits_dtype = factor_dtype
        elif torch.is_autocast_enabled(device):
            factor_dtype = torch.get_autocast_dtype(device)
        if factor_dtype == torch.float16:  # a row's gradient, divided by all rows, would be too small for it
            factor_dtype = torch.float32
        if logits_dtype.itemsize < factor_dtype.itemsize or (logits_dtype != factor_dtype and device != "cuda"):
            factor_dtype = logits_dtype
        if factor_dtype.itemsize <= weight.dtype.itemsize:
            weight = weight.to(factor_dtype)
        low, up = (None if each is None else each.detach().to(factor_dtype) for each in (rows.low, rows.head.up))
        return cls(rows.head, hidden.to(factor_dtype), weight, factor_dtype, logits_dtype, low, up)

    def logits(self, rows: slice) -> Tensor:
        """The products of some rows, before the head's scale and cap; they last until the next call."""
        hidden_ND = self.hidden[rows]
        if self.buffer is None:
            self.buffer = hidden_ND.new_empty(len(hidden_ND), len(self.weight), dtype=self.logits_dtype)
        out_NC = self.buffer[: len(hidden_ND)]
        for classes, weight_CD in self._blocks():
            _multiply(hidden_ND, weight_CD.t(), out_NC[:, classes])
        if self.low is not None:
            assert self.up is not None
            _add_product(self.low[rows], self.up.t(), out_NC)
        if self.head.bias is not None:
            out_NC.add_(self.head.bias.detach())
        return out_NC

    def hidden_gradient(self, gradient_NC: Tensor) -> Tensor:
        """gradient @ weight, `[N, D]`."""
        total_ND = gradient_NC.new_empty(len(gradient_NC), self.weight.shape[-1], dtype=self.logits_dtype)
        for number, (classes, weight_CD) in enumerate(self._blocks()):
            if number == 0:
                _multiply(gradient_NC[:, classes], weight_CD, total_ND)
            else:
                total_ND.addmm_(gradient_NC[:, classes], weight_CD)
        return total_ND

    def low_gradient(self, gradient_NC: Tensor) -> Tensor:
        """gradient @ up, `[N, R]`."""
        assert self.up is not None
        return gradient_NC @ self.up

    def add_up_gradient(self, gradient_NC: Tensor, rows: slice, total_CR: Tensor) -> None:
        """`total_CR` += gradient.T @ low."""
        assert self.low is not None
        _add_product(gradient_NC.t(), self.low[rows], total_CR)

    def add_weight_gradient(self, gradient_NC: Tensor, rows: slice, total_CD: Tensor) -> None:
        """`total_CD` += gradient.T @ hidden, added up in the dtype of `total_CD`."""
        hidden_ND = self.hidden[rows]
        if self.factor_dtype == total_CD.dtype:
            total_CD.addmm_(gradient_NC.t(), hidden_ND)
        elif total_CD.device.type == "cuda":
            torch.addmm(total_CD, gradient_NC.t(), hidden_ND, out_dtype=total_CD.dtype, out=total_CD)
        else:
            for classes in _slices(total_CD):
                total_CD[classes].add_(gradient_NC[:, classes].t() @ hidden_ND)

    def _blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Classes and their part of the weight in `factor_dtype`; all at once where nothing is converted."""
        whole = self.weight.dtype == self.factor_dtype
        for classes in [slice(None)] if whole else _slices(self.weight):
            yield classes, self.weight[classes].to(self.factor_dtype)


def _slices(weight_CD: Tensor) -> Iterator[slice]:
    most = CONVERTED_BYTES.get(weight_CD.device.type, CONVERTED_BYTES["cuda"])
    step = max(1, most // (4 * weight_CD.shape[-1]))
    return (slice(start, start + step) for start in range(0, len(weight_CD), step))


def _multiply(x: Tensor, y: Tensor, out: Tensor) -> None:
    if x.dtype == out.dtype:
        torch.mm(x, y, out=out)
    else:
        torch.mm(x, y, out_dtype=out.dtype, out=out)


def _add_product(x: Tensor, y: Tensor, out: Tensor) -> None:
    """Added up in the dtype of `out` where the device can: a CPU rounds each product of 16-bit factors first."""
    if x.dtype == out.dtype:
        out.addmm_(x, y)
    elif out.device.type == "cuda":
        torch.addmm(out, x, y, out_dtype=out.dtype, out=out)
    else:
        out.add_(x @ y)
