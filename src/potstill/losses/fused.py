"""Any per-row logit loss under an output layer, in one pass that never holds `[rows, vocabulary]`.

A chunk of rows at a time, both heads are multiplied, every term's value and the gradient of their weighted sum is taken
in the logits, and the gradients of the student's rows and head are added up, all in the forward pass: of N rows no more
than one chunk's logits live, and nothing is computed twice. The backward pass only hands the gradients on.

2 N C (3 D_student + D_teacher) operations; a head that is not trained costs no gradient, a third of the student's part,
also where a low-rank part beside it is.
Memory beside the inputs: the student's gradients, and the logits of one chunk of both models.
"""

# N rows, C classes (the vocabulary), D width, T terms

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from potstill.losses.heads import HeadInput
from potstill.losses.precision import loss_dtype
from potstill.losses.products import Products
from potstill.losses.row_math import RowMath, RowTerm, diagnosed_names, taken
from potstill.losses.sparse import SparseLogits

# Of both models' logits, as if in float32: with more rows 16 bits take more memory and no less time.
CHUNK_BYTES = {"cpu": 2**26, "cuda": 2**30}
MIN_CHUNK_ROWS = 128  # with fewer the products are slow: each goes through a whole head

Teacher = HeadInput | SparseLogits | Tensor | None


@dataclass(frozen=True)
class Options:
    """How, but not what, is computed.

    logits_dtype: bfloat16 is fast, and as inexact as that; with float32, factors of 16 bits are added up in float32 as
        well. What is float64 stays. chunk_bytes: of logits at a time; None: what suits the device. compiled: the work
        between the products, by `torch.compile`, where the gradient of every term is known.
    """

    logits_dtype: torch.dtype = torch.float32
    chunk_bytes: int | None = None
    compiled: bool = False


@dataclass(frozen=True)
class Fused:
    """loss: a scalar with its graph. values: of each term, not weighted, `[N]`, without graph.

    diagnostics: `[N]` each, where asked for and there is a teacher: its `entropy` and `kl`, KL(teacher || student), at
    temperature 1, in nats, and `agreement`, 1.0 where the teacher's first class is the student's. Of a teacher known in
    part, `teacher_mass` in place of its entropy; of drawn classes, nothing.
    """

    loss: Tensor
    values: dict[str, Tensor]
    diagnostics: dict[str, Tensor]


def fused(
    student: HeadInput,
    teacher: Teacher,
    labels_N: Tensor,
    terms: Mapping[str, RowTerm],
    weights: Mapping[str, Tensor | float],
    *,
    weights_N: Tensor | None = None,
    valid_N: Tensor | None = None,
    diagnose: bool = False,
    options: Options = Options(),
) -> Fused:
    """sum_t weight_t sum_n weight_n value_tn over the rows, and what each value is.

    teacher: rows before its own head, its top-k, or its logits (log-probabilities are such) `[N, C]`; no gradient
        reaches it. weights: by term, its weight over the rows of the whole global batch. weights_N: of the rows; None:
        1 each. valid_N: bool, the rows that count: others are taken out first and cost nothing; None: all.
    """
    if valid_N is not None:
        rows = valid_N.nonzero().squeeze(1)
        student, teacher, labels_N = student.take(rows), taken(teacher, rows), labels_N[rows]
        weights_N = None if weights_N is None else weights_N[rows]
    work = _Pass(student, teacher, labels_N, terms, [weights[name] for name in terms], weights_N, diagnose, options)
    loss = _SinglePass.apply(work, torch.is_grad_enabled(), *student.factors())
    values, diagnosed = work.found[: len(terms)], work.found[len(terms) :]
    names = diagnosed_names(teacher) if diagnose else ()
    return Fused(loss, dict(zip(terms, values, strict=True)), dict(zip(names, diagnosed, strict=True)))


class _SinglePass(torch.autograd.Function):
    """Gradients are taken in the forward pass; a second backward pass of the same graph takes them anew."""

    @staticmethod
    def forward(ctx: Any, work: _Pass, wanted: bool, *inputs: Tensor | None) -> Tensor:
        ctx.work = work
        ctx.save_for_backward(*inputs)
        loss, ctx.gradients = work.run([wanted and needed for needed in ctx.needs_input_grad[2:]])
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = ctx.work.run(ctx.needs_input_grad[2:])
        handed = [
            None if each is None else each.mul_(factor).to(own.dtype)
            for each, own in zip(gradients, inputs, strict=True)
        ]
        return None, None, *handed


@dataclass
class _Pass:
    """One call of `fused`. found: values of every term, then the diagnostics, `[N]` each."""

    student: HeadInput
    teacher: Teacher
    labels: Tensor
    terms: Mapping[str, RowTerm]
    weights: list[Tensor | float]
    row_weights: Tensor | None
    diagnose: bool
    options: Options
    found: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def run(self, wanted: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
        """The loss, and its gradients in the student's `factors`, where `wanted`."""
        products = Products.of(self.student, self.options.logits_dtype)
        teacher = Products.of(self.teacher, self.options.logits_dtype) if isinstance(self.teacher, HeadInput) else None
        totals = self._totals(wanted, products)
        weights_TN = self._weights(loss_dtype(products.logits_dtype))
        with torch.autocast(self.labels.device.type, enabled=False):
            parts = [self._chunk(products, teacher, rows, weights_TN, totals) for rows in self._chunks(products)]
        nothing = weights_TN.new_empty(0)
        num_found = len(self.terms) + self.diagnose * len(diagnosed_names(self.teacher))
        self.found = [torch.cat(each) for each in zip(*parts, strict=True)] or [nothing] * num_found
        values = self.found[: len(self.terms)]
        return sum(
            ((w_N * values_N).sum() for w_N, values_N in zip(weights_TN, values, strict=True)), nothing.sum()
        ), totals

    def _weights(self, dtype: torch.dtype) -> Tensor:
        """Of each term's value of each row in the loss, `[T, N]`."""
        options: Any = {"dtype": dtype, "device": self.labels.device}
        made = [torch.as_tensor(each, **options) for each in self.weights]
        weights_T1 = torch.stack(made).unsqueeze(1) if made else torch.empty(0, 1, **options)
        if self.row_weights is None:
            return weights_T1.expand(-1, len(self.labels))
        return weights_T1 * self.row_weights.to(dtype)

    def _totals(self, wanted: Sequence[bool], products: Products) -> list[Tensor | None]:
        """Where gradients go: those of the head are added up in float32 or better."""
        hidden, weight, bias, low, up = self.student.factors()
        dtype = loss_dtype(products.logits_dtype)
        places = ((hidden, None), (weight, dtype), (bias, dtype), (low, None), (up, dtype))
        return [
            torch.zeros_like(each, dtype=own) if is_wanted and each is not None else None
            for (each, own), is_wanted in zip(places, wanted, strict=True)
        ]

    def _chunks(self, products: Products) -> list[slice]:
        """Equal ones, as many as the bytes ask for."""
        num_rows, num_classes = len(self.student), len(self.student.head.weight)
        device = self.labels.device.type
        if self.options.chunk_bytes is None:
            most = CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // (2 * num_classes * torch.float32.itemsize)
            most = max(most, MIN_CHUNK_ROWS)
        else:
            most = max(1, self.options.chunk_bytes // (2 * num_classes * products.logits_dtype.itemsize))
        num_chunks = max(1, -(-num_rows // most))
        step = max(1, -(-num_rows // num_chunks))
        return [slice(start, start + step) for start in range(0, num_rows, step)]

    def _chunk(
        self,
        products: Products,
        teacher: Products | None,
        rows: slice,
        weights_TN: Tensor,
        totals: list[Tensor | None],
    ) -> list[Tensor]:
        """What is found of these rows; adds their gradients to `totals`."""
        of_hidden, of_weight, of_bias, of_low, of_up = totals
        math = RowMath(
            tuple(self.terms.values()),
            self.student.head.finish,
            None if teacher is None else teacher.head.finish,
            self.diagnose,
        )
        logits_NC = products.logits(rows)
        target = taken(self.teacher, rows) if teacher is None else teacher.logits(rows)
        found, gradient_NC = math(
            logits_NC,
            target,
            self.labels[rows],
            weights_TN[:, rows],
            dtype=products.factor_dtype,
            compiled=self.options.compiled,
        )
        if of_hidden is not None:
            of_hidden[rows] = products.hidden_gradient(gradient_NC)
        if of_weight is not None:
            products.add_weight_gradient(gradient_NC, rows, of_weight)
        if of_bias is not None:
            of_bias += gradient_NC.sum(dim=0, dtype=of_bias.dtype)
        if of_low is not None:
            of_low[rows] = products.low_gradient(gradient_NC)
        if of_up is not None:
            products.add_up_gradient(gradient_NC, rows, of_up)
        return found
