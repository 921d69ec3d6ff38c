"""What `benchmarks/head.py` measures: one loss under two output layers, computed by us, naively, and by peers.

The loss is ce / 2 + KL(teacher || student) / 2 over labelled rows, each averaged; peers that have no cross-entropy give
the divergence alone, and are compared with ours of it alone. Nothing is imported but torch, `potstill.losses` and, when
asked for, a peer: liger-kernel 0.8 (`LigerFusedLinearJSDLoss`, beta 0: the KL; it adds gradients up in the weights'
dtype and rounds logits to it) and trl 1.16 (`ChunkedDivergenceFunction`: no cross-entropy; it multiplies again in the
backward pass; whatever the inputs, its sums are float32).
"""

# N rows, C classes, D width

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.fused import Options, fused
from potstill.losses.heads import Head, HeadInput
from potstill.losses.row_forms import Form
from potstill.losses.row_math import RowTerm

CE, KL = (
    RowTerm(lambda *_: _none(), labelled=True, form=Form("ce")),
    RowTerm(lambda *_: _none(), form=Form("forward_kl")),
)
JSD = RowTerm(lambda *_: _none(), form=Form("jsd", beta=0.5))
IGNORE = -100
FAST = Options(logits_dtype=torch.bfloat16)


@dataclass(frozen=True)
class Shape:
    """N rows, C classes, the widths of student and teacher."""

    num_rows: int
    num_classes: int
    student_width: int
    teacher_width: int

    def __str__(self) -> str:
        return f"{self.num_rows}x{self.num_classes}"


@dataclass
class Given:
    """Inputs of the loss. Hidden states of variance 1 and heads that make logits of variance `spread` squared."""

    student: Tensor
    student_head: Tensor
    teacher: Tensor
    teacher_head: Tensor
    labels: Tensor

    @classmethod
    def of(cls, shape: Shape, dtype: torch.dtype, device: str = "cpu", spread: float = 2.0) -> Given:
        torch.manual_seed(0)

        def normal(*size: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(*size, device=device) * scale).to(dtype)

        widths = shape.student_width, shape.teacher_width
        student, teacher = (normal(shape.num_rows, width) for width in widths)
        heads = [normal(shape.num_classes, width, scale=spread / width**0.5) for width in widths]
        labels = torch.randint(shape.num_classes, (shape.num_rows,), device=device)
        return cls(student.requires_grad_(), heads[0].requires_grad_(), teacher, heads[1], labels)

    def near(self) -> Given:
        """A student of the teacher's width that nearly is the teacher."""
        hidden = (self.teacher + 0.01 * torch.randn_like(self.teacher)).requires_grad_()
        return Given(hidden, self.teacher_head.clone().requires_grad_(), self.teacher, self.teacher_head, self.labels)

    def doubled(self) -> Given:
        """The same in float64."""
        student, head = (each.detach().double().requires_grad_() for each in (self.student, self.student_head))
        return Given(student, head, self.teacher.double(), self.teacher_head.double(), self.labels)

    def gradients(self, loss: Callable[[Given], Tensor]) -> list[Tensor]:
        self.student.grad = self.student_head.grad = None
        loss(self).backward()
        return [each.grad for each in (self.student, self.student_head) if each.grad is not None]


Loss = Callable[[Given], Tensor]


def _none() -> Any:
    raise NotImplementedError("the closed form is what is measured")


def ours(options: Options = Options(), **weights: float) -> Loss:  # noqa: B008  frozen
    """weights: of ce, kl and jsd; 0.5 of the first two where none is given."""
    chosen = weights or {"ce": 0.5, "kl": 0.5}
    terms = {name: {"ce": CE, "kl": KL, "jsd": JSD}[name] for name in chosen}

    def loss(given: Given) -> Tensor:
        valid_N = given.labels != IGNORE
        num_rows = int(valid_N.sum())
        every = num_rows == len(valid_N)
        return fused(
            HeadInput(given.student, Head(given.student_head)),
            HeadInput(given.teacher, Head(given.teacher_head)),
            given.labels,
            terms,
            {name: weight / num_rows for name, weight in chosen.items()},
            valid_N=None if every else valid_N,
            options=options,
        ).loss

    return loss


def naive(given: Given, dtype: torch.dtype = torch.float32) -> Tensor:
    """All logits of both models, and autograd."""
    log_q_NC = F.log_softmax((given.student @ given.student_head.t()).to(dtype), dim=-1)
    log_p_NC = F.log_softmax((given.teacher @ given.teacher_head.t()).to(dtype), dim=-1)
    kl = F.kl_div(log_q_NC, log_p_NC, reduction="batchmean", log_target=True)
    return 0.5 * F.nll_loss(log_q_NC, given.labels) + 0.5 * kl


def products(given: Given) -> None:
    """The four matrix products that no way of computing the gradient can do without."""
    with torch.no_grad():
        logits_NC = given.student @ given.student_head.t()
        given.teacher @ given.teacher_head.t()
        logits_NC @ given.student_head
        logits_NC.t() @ given.student


def liger(*, compiled: bool) -> Loss:
    made = importlib.import_module("liger_kernel.chunked_loss").LigerFusedLinearJSDLoss(beta=0.0, compiled=compiled)
    return lambda given: made(given.student, given.student_head, given.teacher, given.teacher_head, given.labels)


def trl(beta: float) -> Loss:
    function = importlib.import_module("trl.kernels.chunked_divergence").ChunkedDivergenceFunction

    def loss(given: Given) -> Tensor:
        values_N, _ = function.apply(
            given.student, given.student_head, None, given.teacher, given.teacher_head, None, beta
        )
        return values_N.mean()

    return loss
