"""Contrastive losses, and losses on the scores and embeddings of sentence encoders.

Embeddings also have `hidden.hidden_mse`, `hidden.hidden_cosine`, `hidden.embedding_l2` and `relation.similarity_kl`.
"""

# N rows, K candidates or negatives of a row, D width, M rows of a memory bank, or candidates of all rows

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.losses.attention import masked_kl
from potstill.losses.geometry import unit
from potstill.losses.precision import loss_dtype, upcast


def info_nce(
    student_ND: Tensor, teacher_MD: Tensor, *, temperature: float = 0.05, excluded_NM: Tensor | None = None
) -> Tensor:
    """Cross-entropy of finding each row's own candidate among the batch's, one value a row, `[N]`, in nats.

    d_i = -log softmax over j of (cos(student_i, teacher_j) / temperature), at j = i

    Candidates are the teacher's embeddings of the same texts or, without a teacher, the positives of the student's
    anchors. There may be more of them than rows, negatives of their own: those come last. `excluded_NM`, bool, leaves
    candidates out of a row's choice, never its own.

    Not 0 where the models agree: rows that are alike remain hard to tell apart, and other rows push. Both must have the
    same width. The value of a row depends on how a batch is cut. 0.05 is a scale of 20.

    Source: van den Oord et al. 2018, section 2.3, arXiv:1807.03748. Agrees with sentence-transformers'
    MultipleNegativesRankingLoss, which excludes nobody.
    """
    scores_NM = unit(upcast(student_ND)) @ unit(upcast(teacher_MD)).T / temperature
    if excluded_NM is not None:
        scores_NM = scores_NM.masked_fill(excluded_NM, -math.inf)
    return F.cross_entropy(scores_NM, torch.arange(len(scores_NM), device=scores_NM.device), reduction="none")


def margin_mse(
    student_positive_N: Tensor, student_negative_N: Tensor, teacher_positive_N: Tensor, teacher_negative_N: Tensor
) -> Tensor:
    """Squared difference of the margins between two candidates' scores, one value a row, `[N]`, in squared scores.

    d_n = ((s_n+ - s_n-) - (t_n+ - t_n-))^2

    The scores' zero may differ between the models, their scale may not.

    Source: Hofstaetter et al. 2020, arXiv:2010.02666. Agrees with sentence-transformers' MarginMSELoss.
    """
    student_N = upcast(student_positive_N) - upcast(student_negative_N)
    return (student_N - (upcast(teacher_positive_N) - upcast(teacher_negative_N))).square()


def listwise_kl(
    student_NK: Tensor, teacher_NK: Tensor, mask_NK: Tensor, *, temperature: float = 1.0, t2_scaling: bool = True
) -> Tensor:
    """KL(teacher || student) of distributions over a row's candidates, one value a row, `[N]`, in nats.

    d_n = T^2 * sum_k p_nk (log p_nk - log q_nk), over the candidates in `mask_NK`; p, q softmax of scores / T

    Rows may have different numbers of candidates: what stands outside the mask has no influence. Each needs one. T and
    T^2 as in `divergence.forward_kl`, which this is where every candidate is there.

    Source: Cao et al. 2007 (ListNet), Learning to rank: from pairwise approach to listwise approach, with top-one
    probabilities. No arXiv id.
    """
    student_NK, teacher_NK = upcast(student_NK) / temperature, upcast(teacher_NK) / temperature
    return masked_kl(student_NK, teacher_NK, mask_NK.to(torch.bool)) * (temperature**2 if t2_scaling else 1.0)


def crd(
    own_N: Tensor,
    other_NK: Tensor,
    *,
    num_examples: int,
    log_partition: Tensor | float,
    temperature: float = 0.07,
) -> Tensor:
    """Noise-contrastive loss of one side of CRD, one value a row, `[N]`, in nats.

    d_n = -log h(a_n, b_n) - sum_k log(1 - h(a_n, c_nk)),  h(a, b) = e / (e + K / M),  e = exp(a.b / temperature) / Z

    own, other: cosines a.b of each anchor with its positive and with its K negatives. The published loss is the sum of
    two sides: the student's embeddings as anchors among the teacher's, and the reverse (`MemoryBank`). M is the number
    of training examples, log Z a constant (`MemoryBank.log_partition`). With x = a.b / temperature - log Z -
    log(K / M), h is sigmoid(x), so that nothing can overflow. 0.07 is the paper's.

    Source: Tian et al. 2019, section 3, arXiv:1910.10699. Agrees with RepDistiller, which
    adds 1e-7 to the denominators.
    """
    offset = log_partition + math.log(other_NK.shape[1] / num_examples)
    own_N, other_NK = (cosines / temperature - offset for cosines in (own_N, other_NK))
    return F.softplus(-own_N) + F.softplus(other_NK).sum(dim=1)


class MemoryBank(nn.Module):
    """The last embeddings of all training examples by both models, for CRD.

    student, teacher: `[M, D]`, buffers, rows of length 1; random until an example was seen.
    log_partition: `[2]`, a buffer: log Z of the two sides, NaN until the first call of `forward` estimates it,
        from negatives alone; RepDistiller, mdistiller and torchdistill count each row's positive as well.

    Numbers in float32: 2 M D + 2. Every rank has a bank of its own, of the examples that it sees.
    """

    student: Tensor
    teacher: Tensor
    log_partition: Tensor

    def __init__(
        self, num_examples: int, width: int, *, momentum: float = 0.5, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.momentum = momentum
        for name in ("student", "teacher"):
            self.register_buffer(name, unit(torch.randn(num_examples, width, generator=generator)))
        self.register_buffer("log_partition", torch.full((2,), math.nan))

    def draw(self, ids_N: Tensor, num_negatives: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Ids of other examples, uniformly and with repetition, `[N, K]`. Never a row's own."""
        num_examples = len(self.student)
        shape, device = (len(ids_N), num_negatives), ids_N.device
        drawn_NK = torch.randint(num_examples - 1, shape, generator=generator, device=device)
        return drawn_NK + (drawn_NK >= ids_N.unsqueeze(1))

    def forward(
        self,
        student_ND: Tensor,
        teacher_ND: Tensor,
        ids_N: Tensor,
        negative_ids_NK: Tensor,
        *,
        temperature: float = 0.07,
    ) -> Tensor:
        """Both sides of CRD (`crd`), one value a row, `[N]`, in nats. Differentiable in both embeddings.

        A row's positive is its example's embedding in the bank, as in RepDistiller. Until Z was estimated, from the
        first rows it sees, a call changes `log_partition`. Every anchor meets the whole bank, N M products, of which
        K are taken: to take K rows of width D for each anchor first would hold N K D numbers.
        """
        cosines_NM = [
            unit(upcast(anchor)) @ bank.T.to(loss_dtype(anchor.dtype))
            for anchor, bank in ((student_ND, self.teacher), (teacher_ND, self.student))
        ]
        own_N = [cosines.gather(1, ids_N.unsqueeze(1)).squeeze(1) for cosines in cosines_NM]
        other_NK = [cosines.gather(1, negative_ids_NK) for cosines in cosines_NM]
        if len(ids_N) and self.log_partition.isnan().any():
            self.log_partition.copy_(torch.stack([self._estimate(cosines / temperature) for cosines in other_NK]))
        options = {"num_examples": len(self.student), "temperature": temperature}
        sides = zip(own_N, other_NK, self.log_partition, strict=True)
        values_2N = [crd(own, other, log_partition=estimate, **options) for own, other, estimate in sides]
        return torch.stack(values_2N).sum(dim=0)

    @torch.no_grad()
    def update(self, student_ND: Tensor, teacher_ND: Tensor, ids_N: Tensor) -> None:
        """Move the examples' rows towards what the models give now: momentum old + (1 - momentum) new, at length 1.

        After `forward`: else a row would be its own positive.
        """
        for bank, embeddings_ND in ((self.student, student_ND), (self.teacher, teacher_ND)):
            now_ND = unit(upcast(embeddings_ND)).to(bank.dtype)
            bank[ids_N] = unit(self.momentum * bank[ids_N] + (1.0 - self.momentum) * now_ND)

    @torch.no_grad()
    def _estimate(self, scores_NK: Tensor) -> Tensor:
        """log Z such that exp(scores) / Z sums to 1 over all M examples: log(M times its mean)."""
        return scores_NK.flatten().logsumexp(dim=0) + math.log(len(self.student)) - math.log(scores_NK.numel())
