"""Terms on the embeddings of sentence encoders. A row is an example: of several texts, their mean."""

# B examples, K texts of an example (anchor, positive, negatives), N = B K texts, M candidates, D width

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from potstill.losses import contrastive, hidden, relation
from potstill.losses.geometry import unit
from potstill.losses.precision import upcast
from potstill.losses.projection import projection
from potstill.losses.relation_terms import Coupled
from potstill.losses.terms import Term


@dataclass(eq=False, repr=False)
class EmbeddingTerm(Term):
    """Base of the terms that compare every text's embedding with the teacher's, at the teacher's width.

    projector: a key of `projection.PROJECTORS`, as of `ProjectedTerm`: dropped with the objective, so that the exported
        student keeps its own width. `none` compares directly.
    """

    projector: str = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.projection: nn.Module | None = None

    def validate(self) -> None:
        super().validate()
        self.require_projector()

    def prepare(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> None:
        widths = student_embeddings.shape[-1], teacher_embeddings.shape[-1]
        if self.projector == "none" and widths[0] != widths[1]:
            problem = f"needs equal widths: the student's embeddings have {widths[0]}, the teacher's {widths[1]}."
            self.refuse("projector", problem, f"Write loss.term.{self.name}.projector=linear.")
        texts = student_embeddings.flatten(0, 1), teacher_embeddings.flatten(0, 1)
        self.projection = projection(*texts, kind=self.projector)

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        assert self.projection is not None, "prepare(step) comes before forward"
        student_ND = self.projection(upcast(student_embeddings).flatten(0, 1))
        values_N = self.compare(student_ND, teacher_embeddings.flatten(0, 1))
        return values_N.view(student_embeddings.shape[:2]).mean(dim=1)

    def compare(self, student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
        """One value a text, `[N]`."""
        raise NotImplementedError


class EmbeddingMSE(EmbeddingTerm):
    """Mean squared difference of embeddings (`hidden.hidden_mse`), over examples."""

    def compare(self, student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
        return hidden.hidden_mse(student_ND, teacher_ND)


class EmbeddingCosine(EmbeddingTerm):
    """1 - cosine of embeddings (`hidden.hidden_cosine`), over examples."""

    def compare(self, student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
        return hidden.hidden_cosine(student_ND, teacher_ND)


class EmbeddingL2(EmbeddingTerm):
    """Euclidean distance of embeddings (`hidden.embedding_l2`), over examples."""

    def compare(self, student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
        return hidden.embedding_l2(student_ND, teacher_ND)


@dataclass(eq=False, repr=False)
class InfoNCE(EmbeddingTerm):
    """Finding the teacher's embedding of a text among those of the batch (`contrastive.info_nce`), over examples.

    Not 0 where the models agree. The value of a row depends on how the batch is cut.
    """

    couples_rows = True

    temperature: float = 0.05

    def validate(self) -> None:
        super().validate()
        self.require_number("temperature", "a finite number > 0", lambda temperature: temperature > 0.0)

    def compare(self, student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
        return contrastive.info_nce(student_ND, teacher_ND, temperature=self.temperature)


class EmbeddingRelation(Coupled, Term):
    """Base of the terms on how the texts of a batch lie to each other; widths may differ."""

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        values_N = self.compare(student_embeddings.flatten(0, 1), teacher_embeddings.flatten(0, 1))
        return values_N.view(student_embeddings.shape[:2]).mean(dim=1)


@dataclass(eq=False, repr=False)
class SimilarityKL(EmbeddingRelation):
    """KL of each text's similarities to the others of the batch (`relation.similarity_kl`), over examples.

    The value of a row depends on how the batch is cut.
    """

    min_rows = 3

    temperature: float = 0.05

    def validate(self) -> None:
        super().validate()
        self.require_number("temperature", "a finite number > 0", lambda temperature: temperature > 0.0)

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.similarity_kl(student, teacher, temperature=self.temperature)


class EmbeddingRKDDistance(EmbeddingRelation):
    """Distances of pairs of embeddings (`relation.rkd_distance`), over examples. Depends on how the batch is cut."""

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.rkd_distance(student, teacher)


class EmbeddingRKDAngle(EmbeddingRelation):
    """Angles of triples of embeddings (`relation.rkd_angle`), over examples. Depends on how the batch is cut."""

    min_rows = 3

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.rkd_angle(student, teacher)


class MarginMSE(Term):
    """Squared difference of the margins between positive and negative (`contrastive.margin_mse`), over examples.

    Scores are cosines, whose scale both models share whatever their widths; of several negatives, the mean.
    """

    def prepare(self, student_embeddings: Tensor) -> None:
        _require_texts(self, student_embeddings, 3, "an anchor, a positive and a negative")

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        student_BM, teacher_BM = _own_scores(student_embeddings), _own_scores(teacher_embeddings)
        values = [
            contrastive.margin_mse(student_BM[:, 0], student_BM[:, m], teacher_BM[:, 0], teacher_BM[:, m])
            for m in range(1, student_BM.shape[1])
        ]
        return torch.stack(values, dim=1).mean(dim=1)


@dataclass(eq=False, repr=False)
class ListwiseKL(Term):
    """KL of an anchor's distribution over its own candidates (`contrastive.listwise_kl`), over examples.

    Candidates are the example's positive and negatives, scores their cosines with the anchor.
    """

    temperature: float = 0.05

    def validate(self) -> None:
        super().validate()
        self.require_number("temperature", "a finite number > 0", lambda temperature: temperature > 0.0)

    def prepare(self, student_embeddings: Tensor) -> None:
        _require_texts(self, student_embeddings, 3, "an anchor and two candidates")

    def forward(self, student_embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
        student_BM, teacher_BM = self.scores(student_embeddings), self.scores(teacher_embeddings)
        mask_BM = torch.ones_like(student_BM, dtype=torch.bool)
        options = {"temperature": self.temperature, "t2_scaling": False}
        return contrastive.listwise_kl(student_BM, teacher_BM, mask_BM, **options)

    def scores(self, embeddings_BKD: Tensor) -> Tensor:
        """Of each anchor with its candidates, `[B, M]`."""
        return _own_scores(embeddings_BKD)


class InBatchListwiseKL(ListwiseKL):
    """As `listwise_kl` (`contrastive.listwise_kl`), with the candidates of the whole batch.

    The value of a row depends on how the batch is cut.
    """

    couples_rows = True

    def prepare(self, student_embeddings: Tensor) -> None:
        _require_texts(self, student_embeddings, 2, "an anchor and a candidate")

    def scores(self, embeddings_BKD: Tensor) -> Tensor:
        unit_BKD = unit(upcast(embeddings_BKD))
        return unit_BKD[:, 0] @ unit_BKD[:, 1:].flatten(0, 1).T


@dataclass(eq=False, repr=False)
class Contrastive(Term):
    """Finding an anchor's positive among those of the batch (`contrastive.info_nce`), by the student alone.

    The baseline without a teacher. Negatives of every example are candidates as well; what has the anchor's label is
    not, but for its own positive. Over labelled examples. The value of a row depends on how the batch is cut.
    """

    rows = "labelled"
    couples_rows = True

    temperature: float = 0.05

    def validate(self) -> None:
        super().validate()
        self.require_number("temperature", "a finite number > 0", lambda temperature: temperature > 0.0)

    def prepare(self, student_embeddings: Tensor, labels: Tensor) -> None:
        _require_texts(self, student_embeddings, 2, "an anchor and a positive")
        if labels.is_floating_point():
            problem = "takes every positive for one, and pairs with a score may be unlike."
            fix = "Leave out data.columns.score and the pairs of a low one."
            self.refuse("temperature", problem, fix)

    def forward(self, student_embeddings: Tensor, labels: Tensor) -> Tensor:
        labelled_B = labels >= 0
        embeddings_BKD, labels_B = student_embeddings[labelled_B], labels[labelled_B]
        positives_MD = torch.cat([embeddings_BKD[:, 1], embeddings_BKD[:, 2:].flatten(0, 1)])
        alike_BB = labels_B.unsqueeze(1) == labels_B
        own_BB = torch.eye(len(labels_B), dtype=torch.bool, device=labels.device)
        num_negatives = len(positives_MD) - len(labels_B)
        excluded_BM = nn.functional.pad(alike_BB & ~own_BB, (0, num_negatives))
        options = {"temperature": self.temperature, "excluded_NM": excluded_BM}
        return contrastive.info_nce(embeddings_BKD[:, 0], positives_MD, **options)


def _own_scores(embeddings_BKD: Tensor) -> Tensor:
    """Cosine of each anchor with its positive, then its negatives, `[B, K - 1]`."""
    unit_BKD = unit(upcast(embeddings_BKD))
    return (unit_BKD[:, :1] * unit_BKD[:, 1:]).sum(dim=-1)


def _require_texts(term: Term, embeddings_BKD: Tensor, num_texts: int, wanted: str) -> None:
    if embeddings_BKD.shape[1] < num_texts:
        problem = f"needs {wanted} an example, and the data gives {embeddings_BKD.shape[1]} text(s)."
        fix = "Set data.columns.anchor, .positive, .negative; pairs of texts that have a label: data.pair_by_label=true"
        term.refuse("weight", problem, fix)
