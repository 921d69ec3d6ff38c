"""Divergences between the class distributions of two models, one value a row.

All take logits `[N, C]` of any floating dtype, compute in float32 or better, and return `[N]` in nats. Logits must be
finite: nothing is clamped or replaced here, so that a broken model is seen and not trained on. In float32 a KL
carries the rounding of its two normalisers, up to 1e-6 T^2: models that nearly agree may come out that far below 0.
"""

# N rows, C classes (or vocabulary); p teacher, q student

from __future__ import annotations

import torch
from torch import Tensor

from potstill.losses.distributions import jensen_shannon, kl, log_softmax, scale, skewed_kl


def forward_kl(
    student_NC: Tensor, teacher_NC: Tensor, *, temperature: float | Tensor = 1.0, t2_scaling: bool = True
) -> Tensor:
    """KL(teacher || student) of tempered class distributions, in nats, one value a row, `[N]`.

    d_n = T^2 * sum_c p_nc (log p_nc - log q_nc),  p = softmax(teacher / T), q = softmax(student / T)

    A true divergence: >= 0, and 0 where the models agree. `temperature` T > 0 divides both logits. T^2
    (`t2_scaling`) undoes the 1/T^2 by which T shrinks the gradient, so that the weight of the term keeps its meaning
    for T >= 1. For another temperature of the teacher, see `forward_ce`, whose gradient is this one's.

    Source: Hinton et al. 2015, section 2, arXiv:1503.02531. Agrees with mdistiller, RepDistiller and mmrazor
    (batchmean). Differ: PKD, mmrazor (reduction=mean) and Model-Optimizer's default also divide by C; TRL, ms-swift,
    DSKD, KDFlow and Liger leave out T^2; TextBrewer, torchtune, DistiLLM and MiniLLM give `forward_ce`.
    """
    log_p_NC, log_q_NC = log_softmax(teacher_NC, temperature), log_softmax(student_NC, temperature)
    return scale(temperature, t2_scaling) * kl(log_p_NC, log_q_NC)


def reverse_kl(student_NC: Tensor, teacher_NC: Tensor, *, temperature: float = 1.0, t2_scaling: bool = True) -> Tensor:
    """KL(student || teacher) of tempered class distributions, in nats, one value a row, `[N]`.

    d_n = T^2 * sum_c q_nc (log q_nc - log p_nc),  p = softmax(teacher / T), q = softmax(student / T)

    Mode-seeking: it punishes the student for mass where the teacher has none, and lets it drop modes. T and T^2 as in
    `forward_kl`.

    Source: Gu et al. 2023 (MiniLLM), section 2.1, arXiv:2306.08543, on fixed inputs instead of the student's own.
    Agrees with TRL at temperature 1.
    """
    log_p_NC, log_q_NC = log_softmax(teacher_NC, temperature), log_softmax(student_NC, temperature)
    return scale(temperature, t2_scaling) * kl(log_q_NC, log_p_NC)


def forward_ce(
    student_NC: Tensor,
    teacher_NC: Tensor,
    *,
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    t2_scaling: bool = True,
) -> Tensor:
    """Cross-entropy of the student under the teacher's distribution, in nats, one value a row, `[N]`.

    d_n = -T^2 * sum_c p_nc log q_nc = forward_kl + T^2 * entropy(teacher)

    The student's gradient is that of `forward_kl`; the value is not 0 where the models agree. `teacher_temperature`
    (None: the same T) divides the teacher's logits alone, which sharpens the target; T^2 stays the student's. It then
    does not undo what T does to the gradient, (q - p) / T, in which q - p no longer shrinks with T: papers with two
    temperatures have no T^2 (`t2_scaling` off). That gradient is 0 where q = p, not where the logits are equal.

    Source: Hinton et al. 2015, section 2, arXiv:1503.02531; two temperatures: Caron et al. 2021 (DINO), section 3.1,
    arXiv:2104.14294, which has 0.1 and 0.04, and no T^2. Agrees with torchtune, DistiLLM and MiniLLM's pt_loss at
    temperature 1, and with TextBrewer's `kd_ce_loss` where `t2_scaling` is off.
    """
    log_p_NC = log_softmax(teacher_NC, teacher_temperature or temperature)
    log_q_NC = log_softmax(student_NC, temperature)
    return -scale(temperature, t2_scaling) * (log_p_NC.exp() * log_q_NC).sum(dim=-1)


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
    log_p_NC, log_q_NC = log_softmax(teacher_NC, temperature), log_softmax(student_NC, temperature)
    return scale(temperature, t2_scaling) * jensen_shannon(log_p_NC, log_q_NC, beta)


def skew_forward_kl(
    student_NC: Tensor, teacher_NC: Tensor, *, skew: float, temperature: float = 1.0, t2_scaling: bool = True
) -> Tensor:
    """KL of the teacher to a mixture of both models, in nats, one value a row, `[N]`.

    d_n = T^2 * KL(p_n || skew p_n + (1 - skew) q_n),  p = softmax(teacher / T), q = softmax(student / T)

    `skew` in [0, 1) is the teacher's part of the mixture: it bounds d / T^2 by -log(skew), and with it the gradient
    where the student has next to no mass. 0 is `forward_kl`. T and T^2 as in `forward_kl`.

    Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898, where 0.1 does well. Same gradient as DistiLLM's
    `skewed_forward_kl`, which leaves out the teacher's entropy, so that its value is not 0 where the models agree.
    """
    log_p_NC, log_q_NC = log_softmax(teacher_NC, temperature), log_softmax(student_NC, temperature)
    return scale(temperature, t2_scaling) * skewed_kl(log_p_NC, log_q_NC, skew)


def skew_reverse_kl(
    student_NC: Tensor, teacher_NC: Tensor, *, skew: float, temperature: float = 1.0, t2_scaling: bool = True
) -> Tensor:
    """KL of the student to a mixture of both models, in nats, one value a row, `[N]`.

    d_n = T^2 * KL(q_n || skew q_n + (1 - skew) p_n),  p = softmax(teacher / T), q = softmax(student / T)

    `skew` in [0, 1) is the student's part of the mixture; d / T^2 is at most -log(skew). 0 is `reverse_kl`.

    Source: Ko et al. 2024 (DistiLLM), arXiv:2402.03898. Agrees with DistiLLM's `skewed_reverse_kl`.
    """
    log_p_NC, log_q_NC = log_softmax(teacher_NC, temperature), log_softmax(student_NC, temperature)
    return scale(temperature, t2_scaling) * skewed_kl(log_q_NC, log_p_NC, skew)


def adaptive_kl(
    student_NC: Tensor,
    teacher_NC: Tensor,
    *,
    head_mass: float = 0.5,
    temperature: float = 1.0,
    t2_scaling: bool = True,
) -> Tensor:
    """Forward and reverse KL, weighed by where the models differ, in nats, one value a row, `[N]`.

    d_n = T^2 * (w_n KL(p_n || q_n) + (1 - w_n) KL(q_n || p_n)),  p = softmax(teacher / T), q = softmax(student / T),
    w_n = sum_(c in head_n) |p_nc - q_nc| / sum_c |p_nc - q_nc|, a constant to the gradient

    The head of a row: the teacher's most probable classes whose probabilities add up to at most `head_mass`, in (0, 1),
    and its first class in any case. Forward KL is said to learn the head first, reverse KL the tail. Where the models
    are equal, both KLs are 0, and so is d.

    Source: Wu et al. 2024 (AKL), arXiv:2404.02657; 0.5 is its default. Agrees with the authors' code, but
    where the models are equal: there it is 0/0.
    """
    log_p_NC, log_q_NC = log_softmax(teacher_NC, temperature), log_softmax(student_NC, temperature)
    head_share_N = _head_share(log_p_NC.detach().exp(), log_q_NC.detach().exp(), head_mass)
    mixed_N = head_share_N * kl(log_p_NC, log_q_NC) + (1.0 - head_share_N) * kl(log_q_NC, log_p_NC)
    return scale(temperature, t2_scaling) * mixed_N


def _head_share(p_NC: Tensor, q_NC: Tensor, head_mass: float) -> Tensor:
    """The part of |p - q| that lies on the most probable classes of p, `[N]`; 0 where there is none at all."""
    sorted_p_NC, order_NC = p_NC.sort(dim=-1, descending=True, stable=True)
    in_head_NC = sorted_p_NC.cumsum(dim=-1) <= head_mass
    in_head_NC[:, 0] = True
    gap_NC = (p_NC - q_NC).abs().gather(-1, order_NC)
    tiny = torch.finfo(gap_NC.dtype).tiny  # too small to move any quotient but 0/0
    return (gap_NC * in_head_NC).sum(dim=-1) / (gap_NC.sum(dim=-1) + tiny)


def tvd(student_NC: Tensor, teacher_NC: Tensor, *, temperature: float = 1.0, t2_scaling: bool = False) -> Tensor:
    """Total variation distance of tempered class distributions, one value a row, `[N]`, without unit, from 0 to 1.

    d_n = 1/2 sum_c |p_nc - q_nc|,  p = softmax(teacher / T), q = softmax(student / T);  times T^2 with `t2_scaling`

    Bounded, so that rows in which the models disagree wholly cannot dominate; its gradient does not fade as the models
    come close. `t2_scaling` is off: this gradient shrinks as 1/T, which T^2 would turn into growth with T.

    Source: Wen et al. 2023 (f-DISTILL), arXiv:2307.15190. Agrees with DistiLLM's `tv_distance`.
    """
    p_NC, q_NC = log_softmax(teacher_NC, temperature).exp(), log_softmax(student_NC, temperature).exp()
    return scale(temperature, t2_scaling) * 0.5 * (p_NC - q_NC).abs().sum(dim=-1)


def entropy(logits_NC: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Shannon entropy of the tempered class distribution, in nats, one value a row, `[N]`, from 0 to log C.

    h_n = -sum_c p_nc log p_nc,  p = softmax(logits / T)

    Of the teacher, it says how much softer than a label the signal is.
    """
    log_p_NC = log_softmax(logits_NC, temperature)
    return -(log_p_NC.exp() * log_p_NC).sum(dim=-1)
