"""Losses on how the rows of a batch lie to each other: widths may differ, and no value is a row's own.

Each returns one value a row, `[N]`, whose mean is the published loss. The value of a row depends on the other rows of
the call: how a batch is cut into micro-batches or over ranks changes loss and gradient.
"""

# N rows, D width; pairs [N, N]; triples [N, N, N]

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.divergence import forward_kl
from potstill.losses.geometry import DISTANCE_EPS, distances, exact_distances, flat, off_diagonal, unit
from potstill.losses.precision import upcast

PKT_EPS = 1e-7  # opposite rows would have probability 0, whose logarithm is infinite


def rkd_distance(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Huber loss of pairwise distances in units of their mean, one value a row, `[N]`, without unit.

    d_i = 1/N * sum_j huber(s_ij - t_ij),  s_ij = |s_i - s_j| / mean over pairs of |s_i - s_j|,  t_ij likewise

    Huber is quadratic up to 1. The mean, over the N (N - 1) ordered pairs, makes it blind to the scale of either space.
    Needs 2 rows (`assert`). Blind to a constant added to all rows, so that it may be taken of logits.

    Source: Park et al. 2019, section 3.2.1, arXiv:1904.05068. Agrees with the authors' code and RepDistiller, which
    average over N^2 pairs, the diagonal's zeros among them, as this does.
    """
    assert len(student_ND) >= 2, "a distance needs two rows"
    return _pad_mean(_huber(_relative_distances(student_ND), _relative_distances(teacher_ND)))


def rkd_angle(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Huber loss of the angles of all triples of rows, one value a row (the vertex), `[N]`, of cosines.

    d_i = 1/N^2 * sum_jk huber(cos s_jik - cos t_jik),  cos s_jik = e_ij . e_ik,  e_ij = (s_j - s_i) / |s_j - s_i|

    Needs 3 rows (`assert`); N^2 D + N^3 numbers in memory. Angles at duplicates count as right angles (e_ij = 0).

    Source: Park et al. 2019, section 3.2.2, arXiv:1904.05068. Agrees with the authors' code and RepDistiller, which
    average over N^3 triples, those with equal members among them, as this does.
    """
    assert len(student_ND) >= 3, "an angle needs three rows"
    return _huber(_angles(student_ND), _angles(teacher_ND)).flatten(start_dim=1).mean(dim=1)


def similarity_preserving(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Squared difference of the rows' similarities to the whole batch, one value a row, `[N]`, from 0 to 4 / N.

    d_i = 1/N * sum_j (s_ij - t_ij)^2,  s_i = g_i / |g_i|, g_ij = <student_i, student_j>,  t likewise

    Source: Tung and Mori 2019, section 3, arXiv:1907.09682. Agrees with RepDistiller. Differs: torchdistill, which
    brings rows to length 1 in L1.
    """
    return _mean_square(unit(_gram(_rows(student_ND))), unit(_gram(_rows(teacher_ND))))


def correlation_congruence(
    student_ND: Tensor, teacher_ND: Tensor, *, gamma: float = 0.4, order: int | None = 2
) -> Tensor:
    """Squared difference of kernel values of pairs of rows, one value a row, `[N]`.

    d_i = 1/N * sum_j (k(s_i, s_j) - k(t_i, t_j))^2,  k(x, y) = exp(-2 gamma) * sum_p (2 gamma x.y)^p / p!, p <= order

    x, y are rows at length 1, for which the sum tends to the Gaussian exp(-gamma |x - y|^2); `order` None is the
    Gaussian itself. gamma 0.4 and order 2 are the paper's. The part of CCKD that concerns pairs of rows; its
    cross-entropy and KL are terms of their own.

    Source: Peng et al. 2019, section 3, arXiv:1904.01802. Differs: torchdistill, whose norm is not squared
    and whose rows are not brought to length 1; RepDistiller, which compares differences of consecutive rows instead.
    """
    return _mean_square(_kernel(student_ND, gamma, order), _kernel(teacher_ND, gamma, order))


def pkt(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """KL of the rows' neighbourhoods, one value a row, `[N]`, in nats divided by N.

    d_i = 1/N * sum_j p_ij (log p_ij - log q_ij),  q_ij = (1 + cos s_ij + eps) / sum_k (1 + cos s_ik + eps),  p of t

    A row's neighbourhood includes itself. The division by N is the authors': a larger batch makes the value smaller.
    `similarity_kl` is the same idea with a temperature, without the row itself and without 1/N.

    Source: Passalis and Tefas 2018, section 3, arXiv:1803.10837. Agrees to 1e-6 with the authors' code, RepDistiller
    and mdistiller, which add the same eps = 1e-7 to p and q inside the logarithm only, so that their gradient is not
    quite 0 where the models agree.
    """
    p_NN, q_NN = _neighbourhood(teacher_ND), _neighbourhood(student_ND)
    return (p_NN * (p_NN.log() - q_NN.log())).mean(dim=-1)


def similarity_kl(student_ND: Tensor, teacher_ND: Tensor, *, temperature: float = 0.05) -> Tensor:
    """KL(teacher || student) of each row's distribution over the other rows, one value a row, `[N]`, in nats.

    d_i = sum_j p_ij (log p_ij - log q_ij), j != i,  q_i = softmax over j of cos(s_i, s_j) / temperature,  p of t

    For embeddings: it teaches the order of neighbours. Two rows have only each other: the value is 0, three are needed
    (`assert`). No T^2: the temperature belongs to the definition of a neighbour. 0.05 is what sentence encoders are
    trained at (a scale of 20).

    Source: Fang et al. 2021 (SEED), section 3, arXiv:2101.04731, over the batch instead of a queue.
    """
    assert len(student_ND) >= 3, "a choice among the others needs three rows"
    student, teacher = (off_diagonal(_gram(unit(_rows(rows)))) for rows in (student_ND, teacher_ND))
    return forward_kl(student, teacher, temperature=temperature, t2_scaling=False)


def linear_cka(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Linear centred kernel alignment of two representations of the same rows, a scalar from 0 to 1.

    cka = |S^T T|^2 / (|S^T S| |T^T T|), Frobenius norms, S and T with their column means taken out

    1 where the two agree up to rotation, scale and shift. It belongs to the batch as a whole, and is biased upwards
    where the rows are fewer than the widths. NaN where a model gives every row the same vector: there is nothing to
    align.

    Source: Kornblith et al. 2019, section 3, arXiv:1905.00414.
    """
    student, teacher = _centred(_rows(student_ND)), _centred(_rows(teacher_ND))
    own = _alignment(student, student) * _alignment(teacher, teacher)
    return _alignment(student, teacher) / own.sqrt()


def cka_distance(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """1 - linear CKA, the batch's one value for every row, `[N]`, from 0 to 1. Needs 2 rows (`assert`).

    d_i = 1 - linear_cka(student, teacher), with its source and traps
    """
    assert len(student_ND) >= 2, "an alignment needs two rows"
    return (1.0 - linear_cka(student_ND, teacher_ND)).expand(len(student_ND))


def _rows(rows: Tensor) -> Tensor:
    return flat(upcast(rows))


def _gram(rows_ND: Tensor) -> Tensor:
    return rows_ND @ rows_ND.T


def _mean_square(student_NN: Tensor, teacher_NN: Tensor) -> Tensor:
    return (student_NN - teacher_NN).square().mean(dim=-1)


def _huber(student: Tensor, teacher: Tensor) -> Tensor:
    return F.smooth_l1_loss(student, teacher, reduction="none")


def _pad_mean(pairs: Tensor) -> Tensor:
    """Mean over N of the N - 1 pairs of a row, `[N, N - 1]`, and a zero for itself."""
    return F.pad(pairs, (1, 0)).mean(dim=-1)


def _relative_distances(rows: Tensor) -> Tensor:
    pairs = distances(_rows(rows))
    return pairs / pairs.mean(dim=(0, 1))


def _angles(rows: Tensor) -> Tensor:
    rows_ND = _rows(rows)
    directions_NND = unit(rows_ND.unsqueeze(0) - rows_ND.unsqueeze(1), eps=DISTANCE_EPS)
    return directions_NND @ directions_NND.transpose(1, 2)


def _kernel(rows: Tensor, gamma: float, order: int | None) -> Tensor:
    exponent_NN = 2.0 * gamma * _gram(unit(_rows(rows)))
    if order is None:
        return (exponent_NN - 2.0 * gamma).exp()
    powers = torch.stack([exponent_NN**power / math.factorial(power) for power in range(order + 1)])
    return math.exp(-2.0 * gamma) * powers.sum(dim=0)


def _neighbourhood(rows: Tensor) -> Tensor:
    unit_ND = unit(_rows(rows))
    # 1 + cos = |x + y|^2 / 2, which rounding cannot bring below 0
    similarity_NN = exact_distances(unit_ND, -unit_ND).square() / 2.0 + PKT_EPS
    return similarity_NN / similarity_NN.sum(dim=-1, keepdim=True)


def _centred(rows_ND: Tensor) -> Tensor:
    return rows_ND - rows_ND.mean(dim=-2, keepdim=True)


def _alignment(one_ND: Tensor, other_ND: Tensor) -> Tensor:
    """|X^T Y|^2, by way of `[D, D]` or of `[N, N]`, the smaller."""
    if len(one_ND) < max(one_ND.shape[1], other_ND.shape[1]):
        return (_gram(one_ND) * _gram(other_ND)).sum()
    return (one_ND.T @ other_ND).square().sum()
