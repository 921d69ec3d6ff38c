"""The row math under an output layer where some of a teacher's classes are known (`losses/sparse.py`).

All that such a loss sees of a row are the logits of its K known classes and of all others as one: K + 1 numbers, whose
gradient is cheap to take by autograd. The others share theirs in proportion to their probabilities. So a row of C
classes is read for one softmax, that of the classes that are not known, and written once.
"""

# N rows of a chunk, R rows of a block, C classes (the vocabulary), K known classes, B = K + 1

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from potstill.losses.distributions import jensen_shannon, kl
from potstill.losses.heads import Finish
from potstill.losses.precision import loss_dtype, upcast
from potstill.losses.row_forms import Form, blocks
from potstill.losses.sparse import SparseLogits, compared, merging_temperature

DIAGNOSED = ("teacher_mass", "kl", "agreement")  # of a teacher whose likeliest classes are known
DIVERGENCES = ("forward_kl", "reverse_kl", "jsd")


def diagnosed_names(teacher: SparseLogits) -> tuple[str, ...]:
    """Of classes that were drawn, nothing is known but these."""
    return () if teacher.is_sampled else DIAGNOSED


def supports(
    forms: Sequence[Form | None], student: Finish, teacher: SparseLogits, num_classes: int, *, diagnose: bool
) -> bool:
    """Known losses whose other classes, if there are any, become one at one temperature, of logits without a cap."""
    plain = all(form and (form.kind in DIVERGENCES or (form.kind == "ce" and not form.smoothing)) for form in forms)
    if not plain or student.soft_cap is not None or num_classes == teacher.ids.shape[-1]:
        return False
    at_one = {1.0} if diagnose and diagnosed_names(teacher) else set()
    return len(at_one | {_merges_at(form, teacher) for form in forms if form}) <= 1


def run(
    forms: Sequence[Form],
    student: Finish,
    student_NC: Tensor,
    teacher: SparseLogits,
    labels_N: Tensor,
    weights: Sequence[Tensor],
    *,
    diagnose: bool,
) -> list[Tensor]:
    """Values of each form, then `DIAGNOSED` where asked for, `[N]` each. `student_NC`, products, becomes the gradient.

    weights: of each form, one number a row, `[N]`.
    """
    factor = student.logit_scale / next((_merges_at(form, teacher) for form in forms), 1.0)
    places_NK, label_N1 = teacher.places(), labels_N.clamp(min=0).unsqueeze(-1)
    read = _read(student_NC, teacher, places_NK, label_N1, factor)
    num_others = student_NC.shape[-1] - places_NK.shape[-1]
    with torch.enable_grad():
        leaf_NB = read.merged.detach().requires_grad_()
        values = [_value(form, leaf_NB, teacher, num_others, read.of_label, labels_N) for form in forms]
        total = sum((w_N * each_N).sum() for w_N, each_N in zip(weights, values, strict=True))
        gradient_NB = torch.autograd.grad(total, leaf_NB)[0] if forms else torch.zeros_like(leaf_NB)  # type: ignore[arg-type]
    of_known_NK = (factor * gradient_NB[:, :-1]).masked_fill_(teacher.absent(), 0.0)
    slope_N1 = factor * gradient_NB[:, -1:] / read.sums.unsqueeze(-1)
    of_label_N1 = torch.zeros_like(slope_N1)
    for form, weight_N in zip(forms, weights, strict=True):
        if form.kind == "ce":
            of_label_N1 -= factor * weight_N.unsqueeze(-1)
    for rows in blocks(student_NC):
        gradient_RC = upcast(student_NC[rows]) * slope_N1[rows]
        gradient_RC.scatter_add_(-1, places_NK[rows], of_known_NK[rows])
        student_NC[rows] = gradient_RC.scatter_add_(-1, label_N1[rows], of_label_N1[rows])
    found = diagnosed(read.merged, read.largest, teacher, num_others) if diagnose else []
    return [each_N.detach() for each_N in values] + found


def diagnosed(merged_NB: Tensor, largest_N: Tensor, teacher: SparseLogits, num_others: int) -> list[Tensor]:
    """In the order of `DIAGNOSED`, of logits merged at temperature 1: probability, nats (a lower bound), and 1.0 where
    the teacher's first class, which stands first, has the student's largest logit.
    """
    if teacher.is_sampled:
        return []
    plain = replace(teacher, log_normaliser=None)  # which is of another temperature
    divergence_N = kl(*compared(merged_NB, plain, num_others, temperature=1.0, topk_mode="tail"))
    agrees_N = merged_NB[:, 0] == largest_N
    return [teacher.mass(), divergence_N, agrees_N.to(divergence_N.dtype)]


def _merges_at(form: Form, teacher: SparseLogits) -> float:
    return 1.0 if form.kind == "ce" else merging_temperature(teacher, form.temperature, form.topk_mode)


class _Read(NamedTuple):
    """Of every row: `sparse.merged` of its logits, the largest of them, the label's, and what its other classes, each
    as exp(logit - the largest of these), sum up to.
    """

    merged: Tensor
    largest: Tensor
    of_label: Tensor
    sums: Tensor


def _read(student_NC: Tensor, teacher: SparseLogits, places_NK: Tensor, label_N1: Tensor, factor: float) -> _Read:
    """Logits are `factor` times the products, which become the summands of `sums`: 0 of the known classes.

    All that outlives a block has its place beforehand: made between blocks, it would keep the next from its memory.
    """
    (num_rows, num_known), empty = places_NK.shape, partial(student_NC.new_empty, dtype=loss_dtype(student_NC.dtype))
    read = _Read(empty(num_rows, num_known + 1), *(empty(num_rows) for _ in range(3)))
    for rows in blocks(student_NC):
        logits_RC = factor * upcast(student_NC[rows])
        read.merged[rows, :-1] = own_RK = logits_RC.gather(-1, places_NK[rows])
        read.of_label[rows] = logits_RC.gather(-1, label_N1[rows]).squeeze(-1)
        top_R1 = logits_RC.scatter_(-1, places_NK[rows], -math.inf).amax(dim=-1, keepdim=True)
        read.largest[rows] = torch.maximum(own_RK.amax(dim=-1), top_R1.squeeze(-1))
        read.sums[rows] = sum_R = logits_RC.sub_(top_R1).exp_().sum(dim=-1)
        read.merged[rows, -1] = top_R1.squeeze(-1) + sum_R.log()
        student_NC[rows] = logits_RC
    read.merged[:, :-1].masked_fill_(teacher.absent(), -math.inf)
    return read


def _value(
    form: Form, merged_NB: Tensor, teacher: SparseLogits, num_others: int, of_label_N: Tensor, labels_N: Tensor
) -> Tensor:
    if form.kind == "ce":
        return torch.where(labels_N >= 0, merged_NB.logsumexp(dim=-1) - of_label_N, 0.0)
    options = {"temperature": form.temperature, "topk_mode": form.topk_mode}
    log_p_NB, log_q_NB = compared(merged_NB, teacher, num_others, **options)  # type: ignore[arg-type]
    if form.kind == "jsd":
        return form.scale * jensen_shannon(log_p_NB, log_q_NB, form.beta)
    return form.scale * (kl(log_p_NB, log_q_NB) if form.kind == "forward_kl" else kl(log_q_NB, log_p_NB))
