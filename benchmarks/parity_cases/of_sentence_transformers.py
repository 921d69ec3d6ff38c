"""sentence-transformers: losses of embeddings, which their `compute_loss_from_embeddings` takes without a model."""

# N rows, D width, K candidates

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.parity_cases.comparing import Case, Loss, candidates, embeddings, theirs
from potstill.losses import contrastive, hidden
from potstill.losses.geometry import unit

PEER = "sentence-transformers"
NO_MODEL: Any = None


def loss_class(name: str) -> Any:
    return getattr(theirs("sentence_transformers.sentence_transformer.losses"), name)


def of_embeddings(name: str, **options: Any) -> Loss:
    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        return loss_class(name)(NO_MODEL, **options).compute_loss_from_embeddings([student], [teacher])

    return loss


def of_candidates(name: str, **options: Any) -> Loss:
    def loss(teacher: Tensor, **columns: Tensor) -> Tensor:
        return loss_class(name)(NO_MODEL, **options).compute_loss_from_embeddings(list(columns.values()), teacher)

    return loss


def in_batch(student: Tensor, teacher: Tensor) -> Tensor:
    made = loss_class("MultipleNegativesRankingLoss")(NO_MODEL)
    return made.compute_loss_from_embeddings([student, teacher], torch.empty(0))


def dot_scores(student_query: Tensor, **columns: Tensor) -> Tensor:
    """Of every candidate, `[N, K]`."""
    return torch.stack([(student_query * column).sum(dim=1) for column in columns.values()], dim=1)


def margins(teacher: Tensor, **columns: Tensor) -> Tensor:
    scores_NK = dot_scores(**columns)
    negatives = range(1, scores_NK.shape[1])
    pairs = [(scores_NK[:, 0], scores_NK[:, k], teacher[:, 0], teacher[:, k]) for k in negatives]
    return torch.cat([contrastive.margin_mse(*pair) for pair in pairs]).mean()


def listwise(teacher: Tensor, temperature: float, teacher_temperature: float, **columns: Tensor) -> Tensor:
    target = teacher * (temperature / teacher_temperature)
    everything = torch.ones_like(teacher, dtype=torch.bool)
    return contrastive.listwise_kl(dot_scores(**columns), target, everything, temperature=temperature).mean()


def mean_of(loss: Loss, **options: Any) -> Loss:
    return lambda student, teacher: loss(student, teacher, **options).mean()


CASES = [
    Case(
        PEER,
        "MSELoss",
        embeddings,
        of_embeddings("MSELoss"),
        "mean over rows and width",
        function="hidden.hidden_mse",
        ours=mean_of(hidden.hidden_mse),
    ),
    Case(
        PEER,
        "EmbedDistillLoss distance_metric=cosine (its default)",
        embeddings,
        of_embeddings("EmbedDistillLoss", distance_metric="cosine"),
        "1 - cosine, mean over rows",
        function="hidden.hidden_cosine",
        ours=mean_of(hidden.hidden_cosine),
    ),
    Case(
        PEER,
        "EmbedDistillLoss distance_metric=l2",
        embeddings,
        of_embeddings("EmbedDistillLoss", distance_metric="l2"),
        "ours has 1e-12 under the root, and subtracts its root: 1e-6 lower",
        function="hidden.embedding_l2, plus 1e-6",
        ours=lambda student, teacher: hidden.embedding_l2(student, teacher).mean() + 1e-6,
    ),
    Case(
        PEER,
        "MarginMSELoss, two negatives",
        candidates,
        of_candidates("MarginMSELoss"),
        "dot products; mean over rows and negatives; labels are scores",
        function="contrastive.margin_mse of each negative",
        ours=margins,
    ),
    Case(
        PEER,
        "DistillKLDivLoss temperature=2",
        candidates,
        of_candidates("DistillKLDivLoss", temperature=2.0),
        "dot products; batchmean; times T^2",
        function="contrastive.listwise_kl temperature=2",
        ours=lambda **given: listwise(**given, temperature=2.0, teacher_temperature=2.0),
        differs=lambda **given: listwise(**given, temperature=2.0, teacher_temperature=2.0) / 4.0,
    ),
    Case(
        PEER,
        "DistillKLDivLoss student_temperature=2 teacher_temperature=0.5",
        candidates,
        of_candidates("DistillKLDivLoss", student_temperature=2.0, teacher_temperature=0.5),
        "T^2 of the student; the teacher's scores times 2 / 0.5",
        function="contrastive.listwise_kl temperature=2, teacher's scores times 4",
        ours=lambda **given: listwise(**given, temperature=2.0, teacher_temperature=0.5),
        differs=lambda **given: listwise(**given, temperature=2.0, teacher_temperature=2.0),
    ),
    Case(
        PEER,
        "MultipleNegativesRankingLoss scale=20 (its default)",
        embeddings,
        in_batch,
        "cosines times scale: a temperature of 1 / scale",
        function="contrastive.info_nce temperature=0.05",
        ours=mean_of(contrastive.info_nce, temperature=0.05),
        differs=mean_of(contrastive.info_nce, temperature=1.0),
    ),
    Case(
        PEER,
        "EmbedDistillLoss distance_metric=mse, of unit rows",
        embeddings,
        lambda student, teacher: of_embeddings("EmbedDistillLoss", distance_metric="mse")(unit(student), unit(teacher)),
        "patient KD's form: mean over the width",
        function="hidden.patient",
        ours=mean_of(hidden.patient),
    ),
]
