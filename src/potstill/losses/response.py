"""Losses on the student's answer to one row."""

# N rows, C classes (or vocabulary)

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from potstill.losses.precision import upcast


def cross_entropy(
    student_NC: Tensor, labels_N: Tensor, *, label_smoothing: float = 0.0, ignore_index: int = -100
) -> Tensor:
    """Cross-entropy of the gold label, in nats, one value a row, `[N]`; exactly 0 where the label is `ignore_index`.

    d_n = -(1 - s) log q_n[label_n] - s / C * sum_c log q_nc,  q = softmax(student), s = label_smoothing in [0, 1]

    Rows without a label keep their place, with value and gradient 0: the caller divides by the number that have one.
    The default `ignore_index` is torch's own and that of `potstill.data.batch.IGNORE`.

    Source: label smoothing of Szegedy et al. 2015, section 7, arXiv:1512.00567. Agrees with torch and transformers.
    """
    return F.cross_entropy(
        upcast(student_NC), labels_N, ignore_index=ignore_index, reduction="none", label_smoothing=label_smoothing
    )
