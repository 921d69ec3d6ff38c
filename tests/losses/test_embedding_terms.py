from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from potstill.data.batch import IGNORE
from potstill.errors import UserError
from potstill.losses import embedding_terms as terms
from potstill.losses.terms import Term
from potstill.objective import Objective, Step

from .registry import EMBEDDING_TERMS, make_term


def step_of(num_texts: int, *, teacher_width: int = 7, labels: Any = None) -> Step:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        torch.randn(6, num_texts, size, generator=generator, dtype=torch.float64) for size in (4, teacher_width)
    )
    labels = torch.arange(6) if labels is None else torch.tensor(labels)
    return Step(None, None, labels, student_embeddings=student.requires_grad_(), teacher_embeddings=teacher)


def values_of(term: Term, step: Step) -> Tensor:
    objective = Objective({"mine": term})
    objective.prepare(step)
    return next(value for _, value in objective._values(step))


@pytest.mark.parametrize("name", EMBEDDING_TERMS)
def test_a_row_is_an_example_whatever_the_widths(name: str) -> None:
    values = values_of(make_term(name), step_of(3))
    assert values.shape == (6,)
    assert values.requires_grad


def test_the_value_of_an_example_is_the_mean_of_its_texts() -> None:
    step = step_of(3, teacher_width=4)
    values = values_of(terms.EmbeddingMSE(projector="none"), step)
    assert step.student_embeddings is not None
    assert step.teacher_embeddings is not None
    torch.testing.assert_close(values, (step.student_embeddings - step.teacher_embeddings).square().mean(dim=(1, 2)))


def test_a_projector_is_trained_and_none_needs_equal_widths() -> None:
    term = terms.EmbeddingCosine()
    values_of(term, step_of(1)).sum().backward()
    assert isinstance(term.projection, torch.nn.Linear)
    assert term.projection.weight.shape == (7, 4)
    assert term.projection.weight.grad is not None
    with pytest.raises(UserError, match="student's embeddings have 4, the teacher's 7") as caught:
        values_of(terms.EmbeddingCosine(projector="none"), step_of(1))
    assert caught.value.key == "loss.term.mine.projector"
    with pytest.raises(UserError, match="no projector"):
        values_of(terms.EmbeddingCosine(projector="linaer"), step_of(1))


@pytest.mark.parametrize(
    ("term", "num_texts", "words"),
    [
        (terms.Contrastive(), 1, "an anchor and a positive an example, and the data gives 1"),
        (terms.MarginMSE(), 2, "a positive and a negative an example, and the data gives 2"),
        (terms.ListwiseKL(), 2, "two candidates"),
        (terms.InBatchListwiseKL(), 1, "an anchor and a candidate"),
    ],
)
def test_texts_that_are_not_there_are_refused(term: Term, num_texts: int, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        values_of(term, step_of(num_texts))
    assert "data.columns" in caught.value.fix


@pytest.mark.parametrize("name", [name for name in EMBEDDING_TERMS if hasattr(make_term(name), "temperature")])
def test_a_temperature_of_zero_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="> 0"):
        Objective({"mine": make_term(name, temperature=0.0)})


def test_what_shares_the_anchors_label_is_no_negative() -> None:
    step = step_of(3, labels=[1, 1, 2, IGNORE, 3, 3])
    values = values_of(terms.Contrastive(temperature=0.1), step)
    assert step.student_embeddings is not None
    kept = step.student_embeddings[[0, 1, 2, 4, 5]]
    candidates = torch.cat([kept[:, 1], kept[:, 2]])
    scores = F.cosine_similarity(kept[:, :1], candidates, dim=-1) / 0.1
    for first, second in ((0, 1), (3, 4)):
        scores[first, second] = scores[second, first] = -torch.inf
    torch.testing.assert_close(values, -scores.log_softmax(dim=1).diagonal())


def test_pairs_with_a_score_are_not_all_positives() -> None:
    with pytest.raises(UserError, match="pairs with a score may be unlike"):
        values_of(terms.Contrastive(), step_of(2, labels=[0.1, 0.9, 0.5, 0.2, 0.3, 1.0]))


def test_margins_are_of_cosines() -> None:
    step = step_of(4)
    values = values_of(terms.MarginMSE(), step)
    assert step.student_embeddings is not None
    assert step.teacher_embeddings is not None
    student, teacher = (
        F.cosine_similarity(each[:, :1], each[:, 1:], dim=-1)
        for each in (step.student_embeddings, step.teacher_embeddings)
    )
    margins = [each[:, :1] - each[:, 1:] for each in (student, teacher)]
    torch.testing.assert_close(values, (margins[0] - margins[1]).square().mean(dim=1))


@pytest.mark.parametrize("in_batch", [False, True])
def test_a_ranking_is_of_an_anchors_candidates(in_batch: bool) -> None:
    step = step_of(3)
    values = values_of((terms.InBatchListwiseKL if in_batch else terms.ListwiseKL)(temperature=0.5), step)

    def distribution(embeddings: Tensor | None) -> Tensor:
        assert embeddings is not None
        others = embeddings[:, 1:].flatten(0, 1).expand(6, -1, -1) if in_batch else embeddings[:, 1:]
        return (F.cosine_similarity(embeddings[:, :1], others, dim=-1) / 0.5).log_softmax(dim=1)

    student, teacher = distribution(step.student_embeddings), distribution(step.teacher_embeddings)
    torch.testing.assert_close(values, (teacher.exp() * (teacher - student)).sum(dim=1))
