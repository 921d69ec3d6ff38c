"""How well embeddings find the texts that belong to a query: one value a query."""

# Q queries, M texts of the corpus, B examples, K texts of an example, D width, k places

from __future__ import annotations

import torch
from scipy.stats import spearmanr
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from potstill.data.batch import IGNORE
from potstill.losses.geometry import unit

PLACES = 10
QUERIES_AT_ONCE = 512  # of which a row of similarities to the whole corpus is held


def retrieve(embeddings_BKD: Tensor, labels_B: Tensor) -> dict[str, Tensor]:
    """Of every example, by the cosine of its first text with the corpus:

    ndcg_at_10: sum over the first 10 places of rel / log2(1 + place), over its largest possible value.
    recall_at_10: relevant texts among the first 10, over all there are (which may be more than 10).
    accuracy_at_1: whether the nearest text is relevant. nearest: that text, as the number of its example.

    Single texts (K = 1) are the corpus of each other, the query left out; else the corpus is the examples' second
    texts. Relevant is what has the query's label. NaN for a query without a label, or of which nothing is relevant.
    """
    is_single = embeddings_BKD.shape[1] == 1
    queries_QD, corpus_MD = unit(embeddings_BKD[:, 0].float()), unit(embeddings_BKD[:, 0 if is_single else 1].float())
    numbers = torch.arange(len(labels_B), device=labels_B.device).split(QUERIES_AT_ONCE)
    parts = [_retrieve(queries_QD, corpus_MD, labels_B, rows, leave_out=is_single) for rows in numbers]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def pair_scores(embeddings_BKD: Tensor) -> Tensor:
    """Cosine of each example's first two texts, `[B]`."""
    first, second = unit(embeddings_BKD[:, :2].double()).unbind(dim=1)
    return (first * second).sum(dim=-1)


def _retrieve(
    queries_QD: Tensor, corpus_MD: Tensor, labels_M: Tensor, rows: Tensor, *, leave_out: bool
) -> dict[str, Tensor]:
    similarity_QM = queries_QD[rows] @ corpus_MD.T
    relevant_QM = (labels_M[rows].unsqueeze(1) == labels_M) & (labels_M[rows] != IGNORE).unsqueeze(1)
    if leave_out:
        similarity_QM.scatter_(1, rows.unsqueeze(1), -torch.inf)
        relevant_QM.scatter_(1, rows.unsqueeze(1), value=False)
    num_places = min(PLACES, len(corpus_MD) - leave_out)
    top_Qk = similarity_QM.topk(max(num_places, 1), dim=1).indices
    found_Qk = relevant_QM.gather(1, top_Qk).double()
    num_relevant_Q = relevant_QM.sum(dim=1)
    discount_k = 1.0 / torch.arange(2.0, 2.0 + found_Qk.shape[1], dtype=torch.double, device=rows.device).log2()
    best_Q = torch.cat([discount_k.new_zeros(1), discount_k.cumsum(0)])[num_relevant_Q.clamp(max=len(discount_k))]
    nothing_Q = num_relevant_Q == 0
    return {
        "ndcg_at_10": ((found_Qk * discount_k).sum(dim=1) / best_Q).masked_fill(nothing_Q, torch.nan),
        "recall_at_10": (found_Qk.sum(dim=1) / num_relevant_Q).masked_fill(nothing_Q, torch.nan),
        "accuracy_at_1": found_Qk[:, 0].masked_fill(nothing_Q, torch.nan),
        "nearest": top_Qk[:, 0],
    }


class ValidationTexts(Metric):
    """`ndcg_at_10` and `recall_at_10` of a validation, of all ranks together; or `spearman`, of scored pairs.

    loss: 1 - the first of these, so that every run has one that says the same whatever it was trained on.
    """

    full_state_update = False
    embeddings: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("embeddings", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, embeddings_BKD: Tensor | None, labels_B: Tensor) -> None:
        assert embeddings_BKD is not None
        self.embeddings.append(embeddings_BKD.float())
        self.labels.append(labels_B)

    def compute(self) -> dict[str, float]:
        embeddings_BKD, labels_B = dim_zero_cat(self.embeddings), dim_zero_cat(self.labels)
        if labels_B.is_floating_point():
            spearman = float(spearmanr(pair_scores(embeddings_BKD).cpu(), labels_B.cpu())[0])  # type: ignore[arg-type]
            return {"loss": 1.0 - spearman, "spearman": spearman}
        found = retrieve(embeddings_BKD, labels_B)
        ndcg, recall = (float(found[name].nanmean()) for name in ("ndcg_at_10", "recall_at_10"))
        return {"loss": 1.0 - ndcg, "ndcg_at_10": ndcg, "recall_at_10": recall}
