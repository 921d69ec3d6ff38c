"""Divergences from a teacher of which only the top-k log-probabilities are known.

All take the student's logits `[N, C]`, the teacher's log-probabilities at temperature 1 `[N, K]`, over the whole
vocabulary, and their class numbers `[N, K]`, no two alike in a row. A row of which fewer than K classes are known has
-inf in the other places, and any class there. They return a value a row, in nats, and the
teacher's probability inside the top-k at temperature 1: how much of the teacher is known at all. More than 1 there
says that these are no log-probabilities.

`topk_mode` says what becomes of the C - K other classes:

tail: one more class of both models, so that two distributions over K + 1 classes are compared: >= 0, and 0 with
    gradient 0 where the models agree. A lower bound of the dense divergence. The default.
renormalise_both: both models are renormalised over the top-k. A divergence as well, but blind to the student's mass
    outside, which may grow.
raw: the dense sum, broken off after K classes. The KLs may be below 0 and have a gradient where the models agree:
    reverse KL is lowered by moving mass out of the teacher's top-k, where nothing is compared. Jensen-Shannon has
    neither fault, but is blind outside.
renormalise_teacher: the teacher over the top-k, the student over everything. Only reverse KL may be below 0, but where
    the models agree all go on to draw the student's mass into the top-k.

A temperature is applied before classes are merged, and what it does to the teacher's other classes depends on each of
them. `log_normaliser_N`, log sum_c p_nc^(1/T) over the whole vocabulary, kept when the teacher was asked, makes `tail`
and `raw` exact. Without it, and T other than 1, both models' other classes are taken as equally probable; agreeing
models are then at 0 too. The other two modes need no such number.
"""

# N rows, C classes (or vocabulary), K known classes, B what is compared: K of them, or K + 1 with the tail

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from potstill.losses.distributions import jensen_shannon, kl, log_softmax, scale
from potstill.losses.precision import upcast

TopkMode = Literal["tail", "renormalise_both", "raw", "renormalise_teacher"]
TOPK_MODES: tuple[TopkMode, ...] = get_args(TopkMode)
_NOTHING = -1e30  # of two log-probabilities, adds exactly 0 to every divergence


@dataclass(frozen=True)
class SparseLogits:
    """Some of each row's classes, the only ones that are known of a teacher.

    log_p: their log-probabilities at temperature 1, over the whole vocabulary, `[N, K]`; -inf where a row knows fewer
        classes than others. ids: which classes, `[N, K]`, no two of a row alike where there is a probability.
    is_sampled: they were drawn, and `log_p` says how often: a row's probabilities sum to 1, and are right on average.
    log_normaliser: `[N]`, log sum_c p_nc^(1/T) over the whole vocabulary, for the one temperature it was kept for.
    """

    log_p: Tensor
    ids: Tensor
    is_sampled: bool = False
    log_normaliser: Tensor | None = None

    def to(self, device: torch.device) -> SparseLogits:
        normaliser_N = None if self.log_normaliser is None else self.log_normaliser.to(device)
        return SparseLogits(self.log_p.to(device), self.ids.to(device).long(), self.is_sampled, normaliser_N)

    def absent(self) -> Tensor:
        """Where a row knows no class, bool `[N, K]`."""
        return self.log_p == -math.inf

    def places(self) -> Tensor:
        """`ids`, with the row's likeliest class once more where nothing is known."""
        likeliest_N1 = self.ids.gather(-1, self.log_p.argmax(dim=-1, keepdim=True))
        return torch.where(self.absent(), likeliest_N1, self.ids)

    def mass(self) -> Tensor:
        """The teacher's probability inside what is known, at temperature 1, `[N]`."""
        return upcast(self.log_p).logsumexp(dim=-1).exp()

    def take(self, rows: slice | Tensor) -> SparseLogits:
        """Some of the rows, in their order."""
        normaliser_N = None if self.log_normaliser is None else self.log_normaliser[rows]
        return SparseLogits(self.log_p[rows], self.ids[rows], self.is_sampled, normaliser_N)


class Sparse(NamedTuple):
    """values: nats a row, `[N]`. mass: the teacher's probability inside the top-k at temperature 1, `[N]`."""

    values: Tensor
    mass: Tensor


def sparse_forward_kl(
    student_NC: Tensor,
    teacher_NK: Tensor,
    ids_NK: Tensor,
    *,
    temperature: float = 1.0,
    t2_scaling: bool = True,
    topk_mode: TopkMode = "tail",
    log_normaliser_N: Tensor | None = None,
) -> Sparse:
    """KL(teacher || student) over what is known of the teacher; see the top of this file.

    d_n = T^2 * sum_b p_nb (log p_nb - log q_nb)

    T and T^2 as in `divergence.forward_kl`, which this is where K = C, and for `tail` where the two models' other
    classes, tempered, are in proportion to each other.

    Agrees with the ghost-token form (`tail`, T = 1). Differs: DistillKit's tail at other temperatures, which raises the
    merged probability itself to 1/T, as if it were one class, while the student's classes are tempered apart.
    """
    teacher = SparseLogits(teacher_NK, ids_NK, log_normaliser=log_normaliser_N)
    log_p_NB, log_q_NB = _compared(student_NC, teacher, temperature, topk_mode)
    return Sparse(scale(temperature, t2_scaling) * kl(log_p_NB, log_q_NB), teacher.mass())


def sparse_reverse_kl(
    student_NC: Tensor,
    teacher_NK: Tensor,
    ids_NK: Tensor,
    *,
    temperature: float = 1.0,
    t2_scaling: bool = True,
    topk_mode: TopkMode = "tail",
    log_normaliser_N: Tensor | None = None,
) -> Sparse:
    """KL(student || teacher) over what is known of the teacher; see the top of this file.

    d_n = T^2 * sum_b q_nb (log q_nb - log p_nb)

    Do not train on `raw`: it falls as the student leaves the teacher's top-k, down to 0 and below.
    """
    teacher = SparseLogits(teacher_NK, ids_NK, log_normaliser=log_normaliser_N)
    log_p_NB, log_q_NB = _compared(student_NC, teacher, temperature, topk_mode)
    return Sparse(scale(temperature, t2_scaling) * kl(log_q_NB, log_p_NB), teacher.mass())


def sparse_jsd(
    student_NC: Tensor,
    teacher_NK: Tensor,
    ids_NK: Tensor,
    *,
    beta: float,
    temperature: float = 1.0,
    t2_scaling: bool = True,
    topk_mode: TopkMode = "tail",
    log_normaliser_N: Tensor | None = None,
) -> Sparse:
    """Generalised Jensen-Shannon divergence over what is known of the teacher; see the top of this file.

    d_n = T^2 * sum_b (beta p_nb (log p_nb - log m_nb) + (1 - beta) q_nb (log q_nb - log m_nb)),
    m = beta p + (1 - beta) q

    `beta` weighs the teacher; at 0 and 1 the two KLs, as in `divergence.jsd`.
    """
    teacher = SparseLogits(teacher_NK, ids_NK, log_normaliser=log_normaliser_N)
    log_p_NB, log_q_NB = _compared(student_NC, teacher, temperature, topk_mode)
    return Sparse(scale(temperature, t2_scaling) * jensen_shannon(log_p_NB, log_q_NB, beta), teacher.mass())


def merging_temperature(teacher: SparseLogits, temperature: float, topk_mode: TopkMode) -> float:
    """At which temperature the student's other classes become one: at that of the loss where the teacher's did."""
    is_exact = topk_mode in ("tail", "raw") and teacher.log_normaliser is not None
    return temperature if is_exact or topk_mode == "renormalise_teacher" else 1.0


def merged(logits_NC: Tensor, teacher: SparseLogits) -> Tensor:
    """Logits of the known classes and, as one, of all others, `[N, K + 1]`; absent ones are -inf.

    `[N, K]` where every class is known.
    """
    ids_NK = teacher.places()
    known_NK = logits_NC.gather(-1, ids_NK).masked_fill(teacher.absent(), -math.inf)
    if logits_NC.shape[-1] == known_NK.shape[-1]:
        return known_NK
    others_N1 = logits_NC.scatter(-1, ids_NK, -math.inf).logsumexp(dim=-1, keepdim=True)
    return torch.cat([known_NK, others_N1], dim=-1)


def compared(
    merged_NB: Tensor, teacher: SparseLogits, num_others: int, *, temperature: float, topk_mode: TopkMode
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of teacher and student over what is compared, `[N, B]` each.

    merged_NB: the student, `merged` of its logits over the `merging_temperature`. num_others: C - K.
    """
    assert topk_mode in TOPK_MODES, topk_mode
    teacher_NK, absent_NK = upcast(teacher.log_p), teacher.absent()
    log_q_NB = merged_NB.log_softmax(dim=-1)
    rest_of_temperature = temperature / merging_temperature(teacher, temperature, topk_mode)
    if num_others == 0 and topk_mode != "renormalise_both":
        assert not absent_NK.any(), "what a row lacks would be taken for known to be 0"
    if topk_mode == "renormalise_both" or num_others == 0:
        known_NK = log_softmax(log_q_NB[:, : teacher_NK.shape[-1]], rest_of_temperature)
        return _present(absent_NK, log_softmax(teacher_NK, temperature), known_NK)
    if topk_mode == "renormalise_teacher":
        return _present(absent_NK, log_softmax(teacher_NK, temperature), log_q_NB[:, :-1])
    if teacher.log_normaliser is None:
        num_others_N1 = num_others + absent_NK.sum(dim=-1, keepdim=True)
        log_p_NB = _tempered_evenly(_with_rest(teacher_NK), num_others_N1, temperature)
        log_q_NB = _tempered_evenly(log_q_NB, num_others_N1, temperature)
    else:
        log_p_NB = _with_rest(teacher_NK / temperature - upcast(teacher.log_normaliser).unsqueeze(-1))
    log_p_NB, log_q_NB = _present(torch.nn.functional.pad(absent_NK, (0, 1)), log_p_NB, log_q_NB)
    return (log_p_NB, log_q_NB) if topk_mode == "tail" else (log_p_NB[:, :-1], log_q_NB[:, :-1])


def _compared(
    student_NC: Tensor, teacher: SparseLogits, temperature: float, topk_mode: TopkMode
) -> tuple[Tensor, Tensor]:
    """The same of all of the student's logits."""
    merged_NB = merged(upcast(student_NC) / merging_temperature(teacher, temperature, topk_mode), teacher)
    num_others = student_NC.shape[-1] - teacher.ids.shape[-1]
    return compared(merged_NB, teacher, num_others, temperature=temperature, topk_mode=topk_mode)


def _present(absent_NB: Tensor, log_p_NB: Tensor, log_q_NB: Tensor) -> tuple[Tensor, Tensor]:
    """Both, with nothing to compare where a class is absent."""
    return log_p_NB.masked_fill(absent_NB, _NOTHING), log_q_NB.masked_fill(absent_NB, _NOTHING)


def _with_rest(log_p_NK: Tensor) -> Tensor:
    """What is missing to 1 as one more class, `[N, K + 1]`.

    The rest is known as well as stored numbers add up, and by rounding they may add up to 1 or more; an empty class
    would be infinitely far from any student. So it is at least the machine's epsilon.
    """
    rest_N1 = -torch.expm1(log_p_NK.logsumexp(dim=-1, keepdim=True))
    floor = rest_N1.new_tensor(torch.finfo(rest_N1.dtype).eps)
    return torch.cat([log_p_NK, torch.maximum(rest_N1, floor).log()], dim=-1)


def _tempered_evenly(log_p_NB: Tensor, num_others_N1: Tensor, temperature: float) -> Tensor:
    """Tempered as if the last entry stood for `num_others_N1` classes of equal probability, and merged again.

    n (r / n)^(1/T) = r^(1/T) n^(1 - 1/T), then divided by the sum over all classes.
    """
    of_others_N1 = (1.0 - 1.0 / temperature) * num_others_N1.to(log_p_NB.dtype).log()
    tempered_NB = log_p_NB / temperature
    tempered_NB = torch.cat([tempered_NB[:, :-1], tempered_NB[:, -1:] + of_others_N1], dim=-1)
    return tempered_NB.log_softmax(dim=-1)
