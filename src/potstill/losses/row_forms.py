"""Per-row losses whose gradient in the logits is known: values and gradient of a block of rows, few passes over it.

With q = softmax(s / T), a loss of log q has the gradient (u - q sum_c u_c) / T in the logits s, u_c its derivative in
log q_c. Of the cross-entropies u is minus the target, which sums to -1: what is left is a q - b p, and all of one
temperature share it.
"""

# R rows of a block, C classes (or vocabulary); p teacher, q student

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from potstill.losses.sparse import TopkMode

BLOCK_BYTES = {"cpu": 2**19, "cuda": 2**26}  # of one model's logits in float32

Kind = Literal["ce", "forward_kl", "forward_ce", "reverse_kl", "jsd", "tvd"]


@dataclass(frozen=True)
class Form:
    """One loss with a known gradient.

    scale: T^2 or 1, as `t2_scaling` says. beta: of `jsd`, in (0, 1). smoothing: of the labels of `ce`. topk_mode: where
        the teacher is known in part (`losses/sparse_rows.py`).
    """

    kind: Kind
    temperature: float = 1.0
    scale: float = 1.0
    beta: float = 0.5
    smoothing: float = 0.0
    topk_mode: TopkMode = "tail"


@dataclass
class Distribution:
    """softmax of a block at one temperature. log_normaliser: of logits whose largest is 0, at that temperature."""

    logits: Tensor
    probabilities: Tensor
    log_normaliser: Tensor


def distribution(centred_RC: Tensor, temperature: float) -> Distribution:
    """Of logits whose largest in each row is 0, so that its probability is the inverse of the normaliser.

    One softmax is faster than its parts, where these are not compiled into what is around them.
    """
    logits_RC = centred_RC if temperature == 1.0 else centred_RC / temperature
    if torch.compiler.is_compiling():
        shares_RC = logits_RC.exp()
        total_R1 = shares_RC.sum(dim=-1, keepdim=True)
        return Distribution(logits_RC, shares_RC / total_R1, total_R1.squeeze(-1).log())
    probabilities_RC = logits_RC.softmax(dim=-1)
    return Distribution(logits_RC, probabilities_RC, -probabilities_RC.amax(dim=-1).log())


@dataclass
class Block:
    """Some rows, cache-sized on a CPU: both models' logits, each row's largest at 0, and what the forms share of them.

    target: the teacher's logits, or None where no form has a teacher.
    """

    student: Tensor
    target: Tensor | None
    labels: Tensor
    _students: dict[float, Distribution] = field(default_factory=dict)
    _teachers: dict[float, Distribution] = field(default_factory=dict)
    _gaps: dict[float, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def q(self, temperature: float) -> Distribution:
        if temperature not in self._students:
            self._students[temperature] = distribution(self.student, temperature)
        return self._students[temperature]

    def p(self, temperature: float) -> Distribution:
        assert self.target is not None
        if temperature not in self._teachers:
            self._teachers[temperature] = distribution(self.target, temperature)
        return self._teachers[temperature]

    def kl_and_entropy(self, temperature: float) -> tuple[Tensor, Tensor]:
        """KL(teacher || student), and the teacher's entropy, `[R]`."""
        if temperature not in self._gaps:
            p, q = self.p(temperature), self.q(temperature)
            own_R = dot(p.probabilities, p.logits)
            kl_R = own_R - dot(p.probabilities, q.logits) - p.log_normaliser + q.log_normaliser
            self._gaps[temperature] = kl_R, p.log_normaliser - own_R
        return self._gaps[temperature]

    def log_ratio(self, temperature: float) -> Tensor:
        """log q - log p, `[R, C]`."""
        p, q = self.p(temperature), self.q(temperature)
        return (q.logits - p.logits).sub_((q.log_normaliser - p.log_normaliser).unsqueeze(-1))


def blocks(student_NC: Tensor) -> Iterator[slice]:
    """Of rows, so few that a CPU's cache holds them through all passes."""
    step = max(1, BLOCK_BYTES.get(student_NC.device.type, BLOCK_BYTES["cuda"]) // (4 * student_NC.shape[-1]))
    return (slice(start, start + step) for start in range(0, len(student_NC), step))


def dot(x_RC: Tensor, y_RC: Tensor) -> Tensor:
    return torch.linalg.vecdot(x_RC, y_RC)


def centred(logits_RC: Tensor) -> Tensor:
    """Each row's largest becomes 0, in place: no probability shows it, and small numbers are exact.

    Not in place where it is compiled: what is written to an input is written back to memory.
    """
    largest_R1 = logits_RC.amax(dim=-1, keepdim=True)
    return logits_RC - largest_R1 if torch.compiler.is_compiling() else logits_RC.sub_(largest_R1)


def values_and_gradient(
    block: Block, forms: Sequence[Form], coefficients: Sequence[Tensor]
) -> tuple[list[Tensor], Tensor]:
    """Each form's value per row, `[R]`, and the gradient of sum_i coefficient_i value_i in the logits, `[R, C]`.

    coefficients: one number a row, `[R]`, for every form.
    """
    gradient_RC = _mixed(block, forms, coefficients)
    values = []
    for form, coefficient_R in zip(forms, coefficients, strict=True):
        slope_R = coefficient_R * (form.scale / form.temperature)
        values.append(form.scale * _APPLY[form.kind](block, form, slope_R, gradient_RC))
    return values, gradient_RC


def _mixed(block: Block, forms: Sequence[Form], coefficients: Sequence[Tensor]) -> Tensor:
    """The shares of the cross-entropies, a q - b p for each temperature; zeros where there are none."""
    slopes: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
    for form, coefficient_R in zip(forms, coefficients, strict=True):
        if form.kind in ("ce", "forward_kl", "forward_ce"):
            student, teacher = slopes.setdefault(form.temperature, ([], []))
            student.append(coefficient_R * (form.scale / form.temperature))
            if form.kind != "ce":
                teacher.append(student[-1])
    gradient_RC = None
    for temperature, (student, teacher) in slopes.items():
        q_RC, a_R1 = block.q(temperature).probabilities, sum(student).unsqueeze(-1)  # type: ignore[union-attr]
        gradient_RC = q_RC * a_R1 if gradient_RC is None else gradient_RC.addcmul_(q_RC, a_R1)
        if teacher:
            b_R1 = sum(teacher).unsqueeze(-1)  # type: ignore[union-attr]
            gradient_RC.addcmul_(block.p(temperature).probabilities, b_R1, value=-1.0)
    return torch.zeros_like(block.student) if gradient_RC is None else gradient_RC


def _cross_entropy(block: Block, form: Form, slope_R: Tensor, gradient_RC: Tensor) -> Tensor:
    """The label's part of the gradient, and the values: 0 in rows without a label, whose slope is 0 as well."""
    q = block.q(1.0)
    has_label_R = block.labels >= 0
    label_R1 = block.labels.clamp(min=0).unsqueeze(-1)  # the place of no label, where 0 is added
    sure, even = 1.0 - form.smoothing, form.smoothing / q.logits.shape[-1]
    _take_at(label_R1, sure * slope_R, gradient_RC)
    values_R = q.log_normaliser - sure * q.logits.gather(-1, label_R1).squeeze(-1)
    if form.smoothing:
        gradient_RC.sub_((even * slope_R).unsqueeze(-1))
        values_R = values_R - even * q.logits.sum(dim=-1)
    return torch.where(has_label_R, values_R, torch.zeros_like(values_R))


def _take_at(places_R1: Tensor, amounts_R: Tensor, gradient_RC: Tensor) -> None:
    """Less by an amount at one place of each row. A scatter, but for `torch.compile`, which fuses none."""
    if torch.compiler.is_compiling():
        is_there_RC = torch.arange(gradient_RC.shape[-1], device=gradient_RC.device) == places_R1
        gradient_RC.sub_(torch.where(is_there_RC, amounts_R.unsqueeze(-1), 0.0))
    else:
        gradient_RC.scatter_add_(-1, places_R1, -amounts_R.unsqueeze(-1))


def _forward_kl(block: Block, form: Form, slope_R: Tensor, gradient_RC: Tensor) -> Tensor:  # noqa: ARG001
    return block.kl_and_entropy(form.temperature)[0]


def _forward_ce(block: Block, form: Form, slope_R: Tensor, gradient_RC: Tensor) -> Tensor:  # noqa: ARG001
    q = block.q(form.temperature)
    return q.log_normaliser - dot(block.p(form.temperature).probabilities, q.logits)


def _reverse_kl(block: Block, form: Form, slope_R: Tensor, gradient_RC: Tensor) -> Tensor:
    """u = q (log q - log p + 1), whose sum is the KL + 1."""
    q_RC = block.q(form.temperature).probabilities
    u_RC = block.log_ratio(form.temperature).mul_(q_RC)
    return _add_centred(gradient_RC, u_RC, q_RC, slope_R)


def _jsd(block: Block, form: Form, slope_R: Tensor, gradient_RC: Tensor) -> Tensor:
    """u = (1 - beta) q log(q / m), with log(m / q) = log1p(beta expm1(-d)), d = log q - log p: exact where d is small.

    |d| is bounded where exp would overflow: what has such a ratio has no mass on the other side.
    """
    p_RC, q_RC = block.p(form.temperature).probabilities, block.q(form.temperature).probabilities
    bound = 0.9 * math.log(torch.finfo(q_RC.dtype).max)
    d_RC = block.log_ratio(form.temperature).clamp_(-bound, bound)
    m_over_q_RC = torch.expm1(-d_RC).mul_(form.beta).log1p_()
    of_teacher_R = -form.beta * dot(p_RC, d_RC.add_(m_over_q_RC))
    u_RC = m_over_q_RC.mul_(q_RC).mul_(form.beta - 1.0)
    return of_teacher_R + _add_centred(gradient_RC, u_RC, q_RC, slope_R)


def _tvd(block: Block, form: Form, slope_R: Tensor, gradient_RC: Tensor) -> Tensor:
    """u = 1/2 q sign(q - p)."""
    p_RC, q_RC = block.p(form.temperature).probabilities, block.q(form.temperature).probabilities
    gap_RC = q_RC - p_RC
    values_R = 0.5 * torch.linalg.vector_norm(gap_RC, ord=1, dim=-1)
    _add_centred(gradient_RC, gap_RC.sign_().mul_(q_RC).mul_(0.5), q_RC, slope_R)
    return values_R


def _add_centred(gradient_RC: Tensor, u_RC: Tensor, q_RC: Tensor, slope_R: Tensor) -> Tensor:
    """gradient += slope (u - q sum u); returns sum u, `[R]`. `u_RC` is used up."""
    sum_R = u_RC.sum(dim=-1)
    gradient_RC.addcmul_(u_RC.addcmul_(q_RC, sum_R.unsqueeze(-1), value=-1.0), slope_R.unsqueeze(-1))
    return sum_R


_APPLY = {
    "ce": _cross_entropy,
    "forward_kl": _forward_kl,
    "forward_ce": _forward_ce,
    "reverse_kl": _reverse_kl,
    "jsd": _jsd,
    "tvd": _tvd,
}
