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

import torch
from torch import Tensor

from potstill.losses.distributions import jensen_shannon, kl
from potstill.losses.heads import Finish
from potstill.losses.precision import upcast
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
    merged_NB, largest_N, of_label_N = _read(student_NC, teacher, places_NK, label_N1, factor)
    num_others = student_NC.shape[-1] - places_NK.shape[-1]
    with torch.enable_grad():
        leaf_NB = merged_NB.detach().requires_grad_()
        values = [_value(form, leaf_NB, teacher, num_others, of_label_N, labels_N) for form in forms]
        total = sum((w_N * each_N).sum() for w_N, each_N in zip(weights, values, strict=True))
        gradient_NB = torch.autograd.grad(total, leaf_NB)[0] if forms else torch.zeros_like(leaf_NB)  # type: ignore[arg-type]
    of_known_NK = (factor * gradient_NB[:, :-1]).masked_fill_(teacher.absent(), 0.0)
    student_NC.mul_(factor * gradient_NB[:, -1:]).scatter_add_(-1, places_NK, of_known_NK.to(student_NC.dtype))
    for form, weight_N in zip(forms, weights, strict=True):
        if form.kind == "ce":
            student_NC.scatter_add_(-1, label_N1, (-factor * weight_N).unsqueeze(-1).to(student_NC.dtype))
    found = diagnosed(merged_NB, largest_N, teacher, num_others) if diagnose else []
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


def _read(
    student_NC: Tensor, teacher: SparseLogits, places_NK: Tensor, label_N1: Tensor, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`sparse.merged` of `factor` times the products, the largest of these, and the label's, `[N]`.

    The products become the probabilities of each row's other classes among themselves: 0 of the known ones.
    """
    known, others, largest, of_label = [], [], [], []
    for rows in blocks(student_NC):
        logits_RC = factor * upcast(student_NC[rows])
        known.append(own_RK := logits_RC.gather(-1, places_NK[rows]))
        of_label.append(logits_RC.gather(-1, label_N1[rows]).squeeze(-1))
        logits_RC.scatter_(-1, places_NK[rows], -math.inf)
        top_R1 = logits_RC.amax(dim=-1, keepdim=True)
        largest.append(torch.maximum(own_RK.amax(dim=-1), top_R1.squeeze(-1)))
        probabilities_RC = logits_RC.softmax(dim=-1)
        others.append(top_R1 - probabilities_RC.amax(dim=-1, keepdim=True).log())
        student_NC[rows].copy_(probabilities_RC)
    known_NK = torch.cat(known).masked_fill_(teacher.absent(), -math.inf)
    return torch.cat([known_NK, torch.cat(others)], dim=-1), torch.cat(largest), torch.cat(of_label)


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
