"""The row math as one Triton kernel: two passes over a row, three where the gradient needs a sum first.

The same as `row_math.RowMath.block`, which is its reference, for a cross-entropy, one divergence, or both. It imports
triton, which comes with torch for CUDA: import this file only where there is an accelerator.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false
# N rows, C classes

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from potstill.losses.heads import Finish
from potstill.losses.row_forms import Form

KINDS = {"forward_kl": 1, "reverse_kl": 2, "jsd": 3, "tvd": 4, "forward_ce": 5}
BLOCK = 4096  # classes at a time
LARGEST = 80.0  # of |log q - log p| in a mixture, where exp stays finite: one side has no mass there


def supports(forms: Sequence[Form | None]) -> bool:
    """At most one cross-entropy, without smoothing, and at most one divergence."""
    known = [form for form in forms if form is not None]
    divergences = [form for form in known if form.kind in KINDS]
    entropies = [form for form in known if form.kind == "ce" and not form.smoothing]
    return len(known) == len(forms) == len(divergences) + len(entropies) and max(len(divergences), len(entropies)) <= 1


def run(
    forms: Sequence[Form],
    heads: tuple[Finish, Finish],
    student_NC: Tensor,
    teacher_NC: Tensor | None,
    labels_N: Tensor,
    weights: Sequence[Tensor],
    *,
    diagnose: bool,
    dtype: torch.dtype,
) -> tuple[list[Tensor], Tensor]:
    """Values of each form, then entropy, KL and agreement where `diagnose`, `[N]` each; the gradient, in `dtype`.

    student_NC, teacher_NC: products of their heads, float32. weights: of each form, one number a row, `[N]`.
    """
    num_rows, num_classes = student_NC.shape
    gradient_NC = torch.empty_like(student_NC, dtype=dtype)
    out = torch.zeros(5, num_rows, device=student_NC.device)
    divergence = next((form for form in forms if form.kind in KINDS), None)
    shape = divergence or Form("ce")
    by_kind = {form.kind in KINDS: weight_N for form, weight_N in zip(forms, weights, strict=True)}
    zeros_N = out[4]
    student, teacher = heads
    _rows[(num_rows,)](
        student_NC, student_NC if teacher_NC is None else teacher_NC, labels_N, gradient_NC, out,
        by_kind.get(False, zeros_N).contiguous(), by_kind.get(True, zeros_N).contiguous(),
        student_NC.stride(0), (student_NC if teacher_NC is None else teacher_NC).stride(0), gradient_NC.stride(0),
        num_rows, num_classes, 1.0 / shape.temperature, shape.scale, shape.beta,
        student.logit_scale, student.soft_cap or 1.0, teacher.logit_scale, teacher.soft_cap or 1.0,
        HAS_CE=False in by_kind, KIND=KINDS[divergence.kind] if divergence else 0, DIAGNOSE=diagnose,
        STUDENT_CAP=student.soft_cap is not None, TEACHER_CAP=teacher.soft_cap is not None,
        LIMIT=LARGEST, BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
    values = [out[int(form.kind in KINDS)] for form in forms]
    return [*values, *(out[2:] if diagnose else ())], gradient_NC


@triton.jit
def _finished(z, scale, cap, HAS_CAP: tl.constexpr):
    z = z * scale
    if HAS_CAP:
        z = cap * (2.0 * tl.sigmoid(2.0 * z / cap) - 1.0)
    return z


@triton.jit
def _load(row_ptr, columns, inside, scale, cap, HAS_CAP: tl.constexpr):
    z = tl.load(row_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    return tl.where(inside, _finished(z, scale, cap, HAS_CAP), -float("inf"))


@triton.jit
def _added(top, total, tempered, z, inv_temperature):
    """Running maximum and sums of exp(z - top), at temperature 1 and tempered."""
    new_top = tl.maximum(top, tl.max(z, axis=0))
    gap = top - new_top
    total = total * tl.exp(gap) + tl.sum(tl.exp(z - new_top), axis=0)
    tempered = tempered * tl.exp(gap * inv_temperature) + tl.sum(tl.exp((z - new_top) * inv_temperature), axis=0)
    return new_top, total, tempered


@triton.jit
def _slope_of(d, p, q, beta, LIMIT: tl.constexpr, KIND: tl.constexpr):
    """u of `row_forms`, and the part of the value that its sum is not. d: log q - log p."""
    rest = tl.zeros_like(p)
    if KIND == 2:
        u = q * d
    elif KIND == 3:
        d = tl.minimum(tl.maximum(d, -LIMIT), LIMIT)
        e = tl.exp(-d) - 1.0
        x = beta * e
        # log1p: near 0, log(1 + x) alone would be the rounding of 1 + x
        m = tl.where(tl.abs(x) < 1e-2, x * (1.0 - x * (0.5 - x * (0.3333333 - 0.25 * x))), tl.log(1.0 + x))
        u = (beta - 1.0) * q * m
        rest = -beta * p * (d + m)
    else:
        u = 0.5 * q * tl.where(q > p, 1.0, tl.where(q < p, -1.0, 0.0))
        rest = 0.5 * tl.abs(q - p) - u
    return u, rest


@triton.jit
def _normalisers(
    row_ptr, num_classes, scale, cap, inv_temperature, HAS_CAP: tl.constexpr, FIND: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The largest logit, log sum exp beside it at temperature 1 and tempered; if FIND, the first largest's class."""
    top = -float("inf")
    total = 0.0
    tempered = 0.0
    first = 0
    for start in range(0, num_classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        z = _load(row_ptr, columns, columns < num_classes, scale, cap, HAS_CAP)
        if FIND:
            first = tl.where(tl.max(z, axis=0) > top, start + tl.argmax(z, axis=0), first)
        top, total, tempered = _added(top, total, tempered, z, inv_temperature)
    return top, tl.log(total), tl.log(tempered), first


@triton.jit
def _sum_of_slopes(
    s_row, t_row, num_classes, s_top, s_log, t_top, t_log, inv_temperature, beta, s_scale, s_cap, t_scale, t_cap,
    STUDENT_CAP: tl.constexpr, TEACHER_CAP: tl.constexpr, LIMIT: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """sum_c u_c, which every class's gradient needs."""
    total = 0.0
    for start in range(0, num_classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < num_classes
        s = _load(s_row, columns, inside, s_scale, s_cap, STUDENT_CAP)
        t = _load(t_row, columns, inside, t_scale, t_cap, TEACHER_CAP)
        log_q = tl.where(inside, (s - s_top) * inv_temperature - s_log, 0.0)
        log_p = tl.where(inside, (t - t_top) * inv_temperature - t_log, 0.0)
        p, q = tl.where(inside, tl.exp(log_p), 0.0), tl.where(inside, tl.exp(log_q), 0.0)
        u, _rest = _slope_of(log_q - log_p, p, q, beta, LIMIT, KIND)
        total += tl.sum(u, axis=0)
    return total


@triton.jit
def _divergence(log_p, log_q, inside, of_student, beta, LIMIT: tl.constexpr, KIND: tl.constexpr):
    """The gradient of some classes at temperature 1, and their part of the value."""
    p, q = tl.where(inside, tl.exp(log_p), 0.0), tl.where(inside, tl.exp(log_q), 0.0)
    if KIND == 1:
        slope = q - p
        value = p * (log_p - log_q)
    elif KIND == 5:
        slope = q - p
        value = -p * log_q
    else:
        u, rest = _slope_of(log_q - log_p, p, q, beta, LIMIT, KIND)
        slope = u - q * of_student
        value = u + rest
    return slope, tl.sum(value, axis=0)


@triton.jit
def _rows(
    s_ptr, t_ptr, label_ptr, g_ptr, out_ptr, ce_weight_ptr, kd_weight_ptr, s_stride, t_stride, g_stride,
    num_rows, num_classes, inv_temperature, value_scale, beta, s_scale, s_cap, t_scale, t_cap,
    HAS_CE: tl.constexpr, KIND: tl.constexpr, DIAGNOSE: tl.constexpr, STUDENT_CAP: tl.constexpr,
    TEACHER_CAP: tl.constexpr, LIMIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    HAS_TEACHER: tl.constexpr = (KIND > 0) or DIAGNOSE
    row = tl.program_id(0).to(tl.int64)
    s_row, t_row, g_row = s_ptr + row * s_stride, t_ptr + row * t_stride, g_ptr + row * g_stride
    label = tl.load(label_ptr + row)
    ce_weight = tl.load(ce_weight_ptr + row)
    kd_weight = tl.load(kd_weight_ptr + row) * value_scale * inv_temperature
    s_top, s_log, s_log_tempered, s_first = _normalisers(
        s_row, num_classes, s_scale, s_cap, inv_temperature, STUDENT_CAP, DIAGNOSE, BLOCK
    )
    if HAS_TEACHER:
        t_top, t_log, t_log_tempered, t_first = _normalisers(
            t_row, num_classes, t_scale, t_cap, inv_temperature, TEACHER_CAP, DIAGNOSE, BLOCK
        )
    of_student = 0.0
    if (KIND >= 2) and (KIND <= 4):
        of_student = _sum_of_slopes(
            s_row, t_row, num_classes, s_top, s_log_tempered, t_top, t_log_tempered, inv_temperature, beta,
            s_scale, s_cap, t_scale, t_cap, STUDENT_CAP, TEACHER_CAP, LIMIT, KIND, BLOCK,
        )  # fmt: skip
    value, label_logit, entropy, kl = 0.0, 0.0, 0.0, 0.0
    for start in range(0, num_classes, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < num_classes
        s = _load(s_row, columns, inside, s_scale, s_cap, STUDENT_CAP)
        z = tl.where(inside, s - s_top, 0.0)
        gradient = tl.zeros_like(z)
        if HAS_TEACHER:
            t = _load(t_row, columns, inside, t_scale, t_cap, TEACHER_CAP)
            y = tl.where(inside, t - t_top, 0.0)
        if KIND > 0:
            log_q, log_p = z * inv_temperature - s_log_tempered, y * inv_temperature - t_log_tempered
            slope, part = _divergence(log_p, log_q, inside, of_student, beta, LIMIT, KIND)
            gradient += kd_weight * slope
            value += part
        if HAS_CE:
            is_label = columns == label
            gradient += ce_weight * (tl.exp(z - s_log) - tl.where(is_label, 1.0, 0.0))
            label_logit += tl.sum(tl.where(is_label, z, 0.0), axis=0)
        if DIAGNOSE:
            log_p1 = y - t_log  # type: ignore[operator]
            p1 = tl.where(inside, tl.exp(log_p1), 0.0)
            entropy -= tl.sum(p1 * log_p1, axis=0)
            kl += tl.sum(p1 * (log_p1 - (z - s_log)), axis=0)
        if STUDENT_CAP:
            gradient *= 1.0 - (s / s_cap) * (s / s_cap)
        tl.store(g_row + columns, (gradient * s_scale).to(g_ptr.dtype.element_ty), mask=inside)
    if HAS_CE:
        tl.store(out_ptr + row, tl.where(label >= 0, s_log - label_logit, 0.0))
    if KIND > 0:
        tl.store(out_ptr + num_rows + row, value * value_scale)
    if DIAGNOSE:
        tl.store(out_ptr + 2 * num_rows + row, entropy)
        tl.store(out_ptr + 3 * num_rows + row, kl)
        tl.store(out_ptr + 4 * num_rows + row, tl.where(s_first == t_first, 1.0, 0.0))
