"""Losses on the order in which two models put the classes of a row."""

# N rows, C classes (or vocabulary), K the teacher's first classes

from __future__ import annotations

import torch
from torch import Tensor

from potstill.losses.precision import upcast


def hinge_ranking(
    student_NC: Tensor, teacher_NC: Tensor, *, margin: float | None = None, top_k: int | None = None
) -> Tensor:
    """Pairwise hinge on logits, one value a row, `[N]`, in units of a logit.

    d_n = mean over pairs a, b of the teacher's first K classes, t_na > t_nb, of
          max(0, min(t_na - t_nb, margin) - (s_na - s_nb)),  t teacher, s student

    The student must keep the teacher's order, with a gap as large as the teacher's, or `margin` where that is less
    (None: no cap). No constant margin is asked for where the teacher has less, so that a student equal to its teacher
    is at 0. Pairs that the teacher ties are at 0 but count: the mean is over all K (K - 1) / 2. `top_k` (None: C)
    bounds the cost, which is K^2 a row.

    Source: pairwise ranking with a hinge. Differs: DistillKit's `sparse_hinge_loss` with its margin of None, which
    takes probabilities in place of logits and averages over the pairs of the batch at once, not row by row.
    """
    top_t_NK, order_NK = upcast(teacher_NC).topk(top_k or teacher_NC.shape[-1], dim=-1)
    top_s_NK = upcast(student_NC).gather(-1, order_NK)
    first, second = torch.triu_indices(order_NK.shape[-1], order_NK.shape[-1], offset=1, device=order_NK.device)
    wanted = top_t_NK[:, first] - top_t_NK[:, second]
    is_ordered = wanted > 0.0
    if margin is not None:
        wanted = torch.minimum(wanted, wanted.new_tensor(margin))
    missing = torch.relu(wanted - (top_s_NK[:, first] - top_s_NK[:, second]))
    return (missing * is_ordered).mean(dim=-1)


def list_mle(student_NC: Tensor, teacher_NC: Tensor, *, top_k: int | None = None) -> Tensor:
    """Negative log-likelihood of the teacher's order under the student, in nats per place, one value a row, `[N]`.

    d_n = -1/K * sum_(k <= K) (s_n(k) - log sum_(j >= k) exp s_n(j)),  (1), (2), ..: classes in the teacher's order

    The student's logits as a Plackett-Luce model: each place is drawn by softmax from the classes that are left; K is
    `top_k` (None: C), and the classes beyond it take part as losers. The target is an order, as hard as a label: gaps
    do not count, and the value is 0 only in the limit. At K = 1 the cross-entropy of the teacher's first class. Ties
    of the teacher are in the order of the columns.

    Source: Xia et al. 2008 (ListMLE), Listwise approach to learning to rank, ICML; the sum over places there, not the
    mean.
    """
    order_NC = upcast(teacher_NC).argsort(dim=-1, descending=True, stable=True)
    sorted_NC = upcast(student_NC).gather(-1, order_NC)
    left_NC = sorted_NC.flip(-1).logcumsumexp(dim=-1).flip(-1)
    return (left_NC - sorted_NC)[:, :top_k].mean(dim=-1)
