"""Divergences between the class distributions of two models, one value a row.

All take logits `[N, C]` of any floating dtype, compute in float32 or better, and return `[N]` in nats. Logits must be
finite: nothing is clamped or replaced here, so that a broken model is seen and not trained on. In float32 a KL
carries the rounding of its two normalisers, up to 1e-6 T^2: models that nearly agree may come out that far below 0.
"""

# N rows, C classes (or vocabulary); p teacher, q student

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.precision import upcast


def _log_softmax(logits_NC: Tensor, temperature: float) -> Tensor:
    return F.log_softmax(upcast(logits_NC) / temperature, dim=-1)


def _kl(log_p_NC: Tensor, log_q_NC: Tensor) -> Tensor:
    return (log_p_NC.exp() * (log_p_NC - log_q_NC)).sum(dim=-1)


def _log_mixture(log_ratio_NC: Tensor, weight: float) -> Tensor:
    """log(weight + (1 - weight) ratio): a mixture over its own part, exact where the ratio is 1, finite where it is 0.

    Mixing log-probabilities first would leave their rounding, which grows with their size, in every row's sum.
    """
    return torch.logaddexp(log_ratio_NC.new_tensor(math.log(weight)), log_ratio_NC + math.log1p(-weight))


def _scale(temperature: float, t2_scaling: bool) -> float:
    return temperature**2 if t2_scaling else 1.0


def forward_kl(student_NC: Tensor, teacher_NC: Tensor, *, temperature: float = 1.0, t2_scaling: bool = True) -> Tensor:
    """KL(teacher || student) of tempered class distributions, in nats, one value a row, `[N]`.

    d_n = T^2 * sum_c p_nc (log p_nc - log q_nc),  p = softmax(teacher / T), q = softmax(student / T)

    A true divergence: >= 0, and 0 where the models agree. `temperature` T > 0 divides both logits. T^2
    (`t2_scaling`) undoes the 1/T^2 by which T shrinks the gradient, so that the weight of the term keeps its meaning
    for T >= 1.

    Source: Hinton et al. 2015, section 2, arXiv:1503.02531. Agrees with mdistiller, RepDistiller and mmrazor
    (batchmean). Differ: PKD, mmrazor (reduction=mean) and Model-Optimizer's default also divide by C; TRL, ms-swift,
    DSKD, KDFlow and Liger leave out T^2; TextBrewer, torchtune, DistiLLM and MiniLLM give `forward_ce`.
    """
    log_p_NC, log_q_NC = _log_softmax(teacher_NC, temperature), _log_softmax(student_NC, temperature)
    return _scale(temperature, t2_scaling) * _kl(log_p_NC, log_q_NC)


def reverse_kl(student_NC: Tensor, teacher_NC: Tensor, *, temperature: float = 1.0, t2_scaling: bool = True) -> Tensor:
    """KL(student || teacher) of tempered class distributions, in nats, one value a row, `[N]`.

    d_n = T^2 * sum_c q_nc (log q_nc - log p_nc),  p = softmax(teacher / T), q = softmax(student / T)

    Mode-seeking: it punishes the student for mass where the teacher has none, and lets it drop modes. T and T^2 as in
    `forward_kl`.

    Source: Gu et al. 2023 (MiniLLM), section 2.1, arXiv:2306.08543, on fixed inputs instead of the student's own.
    Agrees with TRL at temperature 1.
    """
    log_p_NC, log_q_NC = _log_softmax(teacher_NC, temperature), _log_softmax(student_NC, temperature)
    return _scale(temperature, t2_scaling) * _kl(log_q_NC, log_p_NC)


def forward_ce(student_NC: Tensor, teacher_NC: Tensor, *, temperature: float = 1.0, t2_scaling: bool = True) -> Tensor:
    """Cross-entropy of the student under the teacher's distribution, in nats, one value a row, `[N]`.

    d_n = -T^2 * sum_c p_nc log q_nc = forward_kl + T^2 * entropy(teacher)

    The student's gradient is that of `forward_kl`; the value is not 0 where the models agree.

    Source: Hinton et al. 2015, section 2, arXiv:1503.02531. Agrees with torchtune, DistiLLM and MiniLLM's pt_loss at
    temperature 1, and with TextBrewer's `kd_ce_loss` where `t2_scaling` is off.
    """
    log_p_NC, log_q_NC = _log_softmax(teacher_NC, temperature), _log_softmax(student_NC, temperature)
    return -_scale(temperature, t2_scaling) * (log_p_NC.exp() * log_q_NC).sum(dim=-1)


def jsd(
    student_NC: Tensor, teacher_NC: Tensor, *, beta: float, temperature: float = 1.0, t2_scaling: bool = True
) -> Tensor:
    """Generalised Jensen-Shannon divergence of tempered class distributions, in nats, one value a row, `[N]`.

    d_n = T^2 * sum_c (beta p_nc (log p_nc - log m_nc) + (1 - beta) q_nc (log q_nc - log m_nc)),
    m = beta p + (1 - beta) q,  p = softmax(teacher / T), q = softmax(student / T)

    `beta` in [0, 1] weighs the teacher. The interior tends to 0 at both ends, so 0 and 1 are defined as forward and
    reverse KL, the limits of d / beta and d / (1 - beta). At most -beta log(beta) - (1 - beta) log(1 - beta) in the
    interior, before T^2. T and T^2 as in `forward_kl`.

    Source: Agarwal et al. 2023 (GKD), section 2, arXiv:2306.13649. Agrees with TRL at temperature 1. Differ: KDFlow and
    DistiLLM, whose beta weighs the student (their 0.1 is our 0.9); TRL, which leaves out T^2.
    """
    if beta == 0.0:
        return forward_kl(student_NC, teacher_NC, temperature=temperature, t2_scaling=t2_scaling)
    if beta == 1.0:
        return reverse_kl(student_NC, teacher_NC, temperature=temperature, t2_scaling=t2_scaling)
    log_p_NC, log_q_NC = _log_softmax(teacher_NC, temperature), _log_softmax(student_NC, temperature)
    log_ratio_NC = log_q_NC - log_p_NC
    teacher_to_m_N = -(log_p_NC.exp() * _log_mixture(log_ratio_NC, beta)).sum(dim=-1)
    student_to_m_N = -(log_q_NC.exp() * _log_mixture(-log_ratio_NC, 1.0 - beta)).sum(dim=-1)
    return _scale(temperature, t2_scaling) * (beta * teacher_to_m_N + (1.0 - beta) * student_to_m_N)


def entropy(logits_NC: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Shannon entropy of the tempered class distribution, in nats, one value a row, `[N]`, from 0 to log C.

    h_n = -sum_c p_nc log p_nc,  p = softmax(logits / T)

    Of the teacher, it says how much softer than a label the signal is.
    """
    log_p_NC = _log_softmax(logits_NC, temperature)
    return -(log_p_NC.exp() * log_p_NC).sum(dim=-1)
