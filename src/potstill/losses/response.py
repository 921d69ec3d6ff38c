"""Losses on the student's answer to one row: gold labels, and the teacher's logits beyond plain divergences."""

# N rows, C classes (or vocabulary); p teacher, q student, both tempered

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.distributions import kl, log_softmax, scale
from potstill.losses.divergence import forward_kl
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


def focused(values_N: Tensor, focus: float) -> Tensor:
    """Rows weighed by how far they are from 0, `[N]`, in the unit of `values_N`, which are >= 0 up to rounding.

    d'_n = (1 - exp(-d_n))^focus * d_n

    Rows that are learned fade out, and the harder ones lead; the weight has a gradient too. Of a cross-entropy exp(-d)
    is the gold label's probability, and this the focal loss. `focus` is 0 (off) or >= 1: below 1 the weight has no
    derivative where d is 0. The mean stays over rows, not over weights.

    Source: Lin et al. 2017, section 3, arXiv:1708.02002, which has 2; of a KL: Tang et al. 2019, arXiv:1901.00366.
    """
    if focus == 0.0:
        return values_N
    return torch.expm1(-values_N).abs() ** focus * values_N  # abs: in float32 a KL may round to just below 0


def standardise_logits(logits_NC: Tensor) -> Tensor:
    """Logits of each row with mean 0 and standard deviation 1, `[N, C]`, in float32 or better.

    z'_nc = (z_nc - mean_n) / (std_n + 1e-7),  std_n with C - 1 in the denominator

    Before a divergence, on both models: the student need not match the teacher's range, only the relations within a
    row; `temperature` is then the paper's base temperature. 1e-7 only keeps a row of equal logits finite. Near such a
    row, as under a head that begins at 0, the gradient is as large as 1 / std.

    Source: Sun et al. 2024, arXiv:2403.01427. Agrees with the authors' code.
    """
    logits_NC = upcast(logits_NC)
    centred_NC = logits_NC - logits_NC.mean(dim=-1, keepdim=True)
    return centred_NC / (logits_NC.std(dim=-1, keepdim=True) + 1e-7)


def logit_mse(student_NC: Tensor, teacher_NC: Tensor, *, centre: bool = True) -> Tensor:
    """Mean squared difference of logits, one value a row, `[N]`, in squared units of a logit.

    d_n = 1/C * sum_c (student_nc - teacher_nc)^2, where `centre` each row of logits minus its own mean

    The centred form ignores a constant added to a row, which no probability shows; it is twice the limit of
    `forward_kl` with T^2 as T grows. The plain one is larger by the squared difference of the rows' means. The mean
    over classes makes the weight of the term independent of their number.

    Source: plain: the code of Sanh et al. 2019 (DistilBERT), arXiv:1910.01108, and Kim et al. 2021, arXiv:2105.08919;
    both have the sum over classes, C times this. Centred: the limit in Hinton et al. 2015, section 2.1,
    arXiv:1503.02531.
    """
    gap_NC = upcast(student_NC) - upcast(teacher_NC)
    if centre:
        gap_NC = gap_NC - gap_NC.mean(dim=-1, keepdim=True)
    return gap_NC.square().mean(dim=-1)


def dkd_parts(
    student_NC: Tensor, teacher_NC: Tensor, labels_N: Tensor, *, temperature: float = 1.0, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """The two parts of forward KL that the gold label separates, in nats, each `[N]`; no T^2.

    target_n = KL((p_n[y], 1 - p_n[y]) || (q_n[y], 1 - q_n[y]))
    non_target_n = KL(p_n || q_n) of the distributions over the C - 1 other classes
    forward_kl = target + (1 - p[y]) * non_target

    Both 0 where the label is `ignore_index`. Needs C >= 2. See `dkd`.
    """
    labelled_N = labels_N != ignore_index
    labels_N1 = torch.where(labelled_N, labels_N, 0).unsqueeze(-1)
    p_target_N2, p_others_NC = _split(log_softmax(teacher_NC, temperature), labels_N1)
    q_target_N2, q_others_NC = _split(log_softmax(student_NC, temperature), labels_N1)
    target_N, non_target_N = kl(p_target_N2, q_target_N2), kl(p_others_NC, q_others_NC)
    return torch.where(labelled_N, target_N, 0.0), torch.where(labelled_N, non_target_N, 0.0)


def _split(log_p_NC: Tensor, labels_N1: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of (label, any other), `[N, 2]`, and of the others among themselves, `[N, C - 1]`."""
    column_C = torch.arange(log_p_NC.shape[-1] - 1, device=log_p_NC.device)
    others_NC = log_p_NC.gather(-1, column_C + (column_C >= labels_N1))
    any_other_N1 = others_NC.logsumexp(dim=-1, keepdim=True)
    return torch.cat([log_p_NC.gather(-1, labels_N1), any_other_N1], dim=-1), others_NC - any_other_N1


def dkd(
    student_NC: Tensor,
    teacher_NC: Tensor,
    labels_N: Tensor,
    *,
    target_weight: float = 1.0,
    non_target_weight: float = 8.0,
    temperature: float = 1.0,
    t2_scaling: bool = True,
    ignore_index: int = -100,
) -> Tensor:
    """Decoupled knowledge distillation, in nats, one value a row, `[N]`; exactly 0 where the label is `ignore_index`.

    d_n = T^2 * (target_weight * target_n + non_target_weight * non_target_n), the parts of `dkd_parts`

    Forward KL weighs the second part by 1 - p[y], so little where the teacher is sure; here the weight is the user's.
    T and T^2 as in `forward_kl`.

    Source: Zhao et al. 2022, section 3, arXiv:2203.08679 (alpha = 1 and beta between 1 and 10 there; 8 is that of
    mdistiller's CIFAR-100 configs). Agrees with mdistiller, which masks the label by subtracting 1000 from its logit.
    """
    target_N, non_target_N = dkd_parts(
        student_NC, teacher_NC, labels_N, temperature=temperature, ignore_index=ignore_index
    )
    return scale(temperature, t2_scaling) * (target_weight * target_N + non_target_weight * non_target_N)


def dist_inter(student_NC: Tensor, teacher_NC: Tensor, *, temperature: float = 1.0, t2_scaling: bool = True) -> Tensor:
    """1 - the correlation of a row's probabilities over the classes, one value a row, `[N]`, without unit, 0 to 2.

    d_n = T^2 * (1 - pearson_c(q_nc, p_nc)),  p = softmax(teacher / T), q = softmax(student / T)

    The first half of DIST, between classes: the teacher's preferences count, not its sureness. A correlation does not
    shrink with T, so T^2 makes its gradient grow with T; it is there because the authors have it.

    Source: Huang et al. 2022 (DIST), arXiv:2205.10536. Agrees with mmrazor's DISTLoss and the authors' code but for
    rows without variation: they add 1e-8 to the product of norms, here 1e-16 is under each root, and they count 0.
    """
    p_NC, q_NC = log_softmax(teacher_NC, temperature).exp(), log_softmax(student_NC, temperature).exp()
    return scale(temperature, t2_scaling) * _decorrelation(q_NC, p_NC)


def dist_intra(student_NC: Tensor, teacher_NC: Tensor, *, temperature: float = 1.0, t2_scaling: bool = True) -> Tensor:
    """1 - the correlation of a class's probabilities over the rows, one value a CLASS, `[C]`, without unit, 0 to 2.

    d_c = T^2 * (1 - pearson_n(q_nc, p_nc)),  p = softmax(teacher / T), q = softmax(student / T)

    The second half of DIST, within a class: which of these rows are more of it. It couples the rows: over part of a
    batch it is another quantity, and over a single row it is 0. Its mean over classes is the loss of that batch.

    Source and agreement: as `dist_inter`.
    """
    p_NC, q_NC = log_softmax(teacher_NC, temperature).exp(), log_softmax(student_NC, temperature).exp()
    return scale(temperature, t2_scaling) * _decorrelation(q_NC.T, p_NC.T)


def _decorrelation(x_NC: Tensor, y_NC: Tensor) -> Tensor:
    """1 - pearson correlation along the last dimension, as half a squared distance: 0 at equality, never below."""
    return 0.5 * (_unit_variation(x_NC) - _unit_variation(y_NC)).square().sum(dim=-1)


def _unit_variation(x_NC: Tensor) -> Tensor:
    centred_NC = x_NC - x_NC.mean(dim=-1, keepdim=True)
    return centred_NC * (centred_NC.square().sum(dim=-1, keepdim=True) + 1e-16).rsqrt()


def multi_temperature_kl(
    student_NC: Tensor, teacher_NC: Tensor, *, temperatures: tuple[float, ...], t2_scaling: bool = True
) -> Tensor:
    """Mean of `forward_kl` over several temperatures, in nats, one value a row, `[N]`.

    d_n = 1/K * sum_k forward_kl_n(T_k)

    The instance level of multi-level logit distillation. The mean keeps the meaning of the weight whatever K.

    Source: Jin et al. 2023, Multi-level Logit Distillation (CVPR). Differs: the authors' code has the sum over
    T = 2, 3, 4, 5, 6, times the share of rows in which the teacher is no surer than in the batch's median row: the mask
    of these rows multiplies a value that was averaged before.
    """
    values = [forward_kl(student_NC, teacher_NC, temperature=each, t2_scaling=t2_scaling) for each in temperatures]
    return torch.stack(values, dim=-1).mean(dim=-1)


def batch_consistency(student_NC: Tensor, teacher_NC: Tensor, *, temperature: float = 1.0) -> Tensor:
    """How alike the rows of a batch are to each other, compared, one value a row, `[N]`, without unit.

    d_n = sum_m (<q_n, q_m> - <p_n, p_m>)^2,  p = softmax(teacher / T), q = softmax(student / T)

    The batch level of multi-level logit distillation. It couples the rows: d_n sums over all of them.

    Source: Jin et al. 2023, Multi-level Logit Distillation (CVPR). The mean over rows agrees with the authors'
    `bc_loss`.
    """
    p_NC, q_NC = log_softmax(teacher_NC, temperature).exp(), log_softmax(student_NC, temperature).exp()
    return (q_NC @ q_NC.T - p_NC @ p_NC.T).square().sum(dim=-1)


def class_consistency(student_NC: Tensor, teacher_NC: Tensor, *, temperature: float = 1.0) -> Tensor:
    """How alike the classes are over a batch, compared, one value a CLASS, `[C]`, without unit.

    d_c = sum_k (sum_n q_nc q_nk - sum_n p_nc p_nk)^2,  p = softmax(teacher / T), q = softmax(student / T)

    The class level of multi-level logit distillation. It couples the rows, and grows as the square of their number.

    Source: Jin et al. 2023, Multi-level Logit Distillation (CVPR). The mean over classes agrees with the authors'
    `cc_loss`.
    """
    p_NC, q_NC = log_softmax(teacher_NC, temperature).exp(), log_softmax(student_NC, temperature).exp()
    return (q_NC.T @ q_NC - p_NC.T @ p_NC).square().sum(dim=-1)
