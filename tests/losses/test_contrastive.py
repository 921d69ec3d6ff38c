from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.contrastive import MemoryBank, crd, info_nce, listwise_kl, margin_mse
from potstill.losses.divergence import forward_kl
from potstill.losses.geometry import unit


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_row_is_told_from_the_other_rows_teachers() -> None:
    student, teacher = rows(6, 5), rows(6, 5, seed=1)
    cosines = F.cosine_similarity(student.unsqueeze(1), teacher.unsqueeze(0), dim=2)
    expected = -(cosines / 0.1).log_softmax(dim=1).diagonal()
    torch.testing.assert_close(info_nce(student, teacher, temperature=0.1), expected)
    assert torch.autograd.gradcheck(lambda x: info_nce(x, teacher, temperature=0.5), student.requires_grad_())
    assert info_nce(teacher, teacher).mean() < 0.5 * info_nce(teacher, teacher.roll(1, dims=0)).mean()


def test_margins_and_not_scores_are_compared() -> None:
    student, teacher = rows(2, 6), rows(2, 6, seed=1)
    value = margin_mse(student[0], student[1], teacher[0] + 9.0, teacher[1] + 9.0)
    torch.testing.assert_close(value, (student[0] - student[1] - teacher[0] + teacher[1]).square())
    assert margin_mse(*torch.full((4, 1), 300.0).half()).dtype == torch.float32


def test_candidates_that_are_not_there_have_no_influence() -> None:
    student, teacher = rows(3, 6), rows(3, 6, seed=1)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    wild = torch.where(mask.bool(), student, 1e6).requires_grad_()
    value = listwise_kl(wild, torch.where(mask.bool(), teacher, -1e6), mask, temperature=2.0)
    for row, keep in enumerate(mask.bool()):
        expected = forward_kl(student[row : row + 1, keep], teacher[row : row + 1, keep], temperature=2.0)
        torch.testing.assert_close(value[row : row + 1], expected)
    (gradient,) = torch.autograd.grad(value.sum(), wild)
    assert gradient[~mask.bool()].abs().max() == 0.0
    unscaled = listwise_kl(wild, teacher, mask, temperature=2.0, t2_scaling=False)
    torch.testing.assert_close(4.0 * unscaled, listwise_kl(wild, teacher, mask, temperature=2.0))
    assert torch.autograd.gradcheck(lambda x: listwise_kl(x, teacher, mask), student.requires_grad_())


def test_the_contrastive_loss_is_that_of_a_classifier_with_a_known_prior() -> None:
    anchor, positive, negatives = rows(4, 5), unit(rows(4, 5, seed=1)), unit(rows(4, 7, 5, seed=2))
    options = {"num_examples": 100, "log_partition": 3.0, "temperature": 0.5}

    def joint(one: Tensor, other: Tensor) -> Tensor:
        density = (F.cosine_similarity(one, other, dim=-1) / 0.5 - 3.0).exp()
        return density / (density + 7 / 100)

    expected = -joint(anchor, positive).log() - (1 - joint(anchor.unsqueeze(1), negatives)).log().sum(dim=1)
    own = F.cosine_similarity(anchor, positive).requires_grad_()
    other = F.cosine_similarity(anchor.unsqueeze(1), negatives, dim=2).requires_grad_()
    torch.testing.assert_close(crd(own, other, **options), expected)
    assert torch.autograd.gradcheck(lambda *cosines: crd(*cosines, **options), (own, other))


def test_certain_contrasts_do_not_overflow() -> None:
    own, other = torch.tensor([-1.0], requires_grad=True), torch.tensor([[1.0]], requires_grad=True)
    value = crd(own, other, num_examples=10, log_partition=0.0, temperature=1e-3)
    assert value.item() == pytest.approx(2000.0, rel=1e-2)
    gradients = torch.autograd.grad(value.sum(), (own, other))
    assert all(gradient.isfinite().all() for gradient in gradients)


def make_bank(num_examples: int = 20, width: int = 5) -> MemoryBank:
    return MemoryBank(num_examples, width, generator=torch.Generator().manual_seed(0))


def test_a_row_is_never_its_own_negative() -> None:
    bank, ids = make_bank(4), torch.arange(4)
    drawn = bank.draw(ids, 1000, generator=torch.Generator().manual_seed(0))
    for row in range(4):
        counts = drawn[row].bincount(minlength=4)
        assert counts[row] == 0
        assert counts.sum() == 1000
        assert counts[[other for other in range(4) if other != row]].min() > 250, "and the others come equally often"


def test_the_bank_keeps_both_models_last_embeddings_at_length_one() -> None:
    bank, ids = make_bank(), torch.tensor([3, 11])
    before = bank.student.clone()
    student, teacher = rows(2, 5).float().requires_grad_(), rows(2, 5, seed=1).float()
    bank.update(student, teacher, ids)
    torch.testing.assert_close(bank.student[ids], unit(0.5 * before[ids] + 0.5 * unit(student.detach())))
    torch.testing.assert_close(bank.teacher.norm(dim=1), torch.ones(20))
    others = [row for row in range(20) if row not in (3, 11)]
    assert torch.equal(bank.student[others], before[others])
    assert not bank.student.requires_grad
    for _ in range(20):
        bank.update(student, teacher, ids)
    torch.testing.assert_close(bank.teacher[ids], unit(teacher))


def test_the_partition_is_estimated_once_and_travels_with_the_bank() -> None:
    bank, ids = make_bank(), torch.tensor([3, 11])
    negatives = bank.draw(ids, 16, generator=torch.Generator().manual_seed(1))
    student, teacher = rows(2, 5).float(), rows(2, 5, seed=1).float()
    value = bank(student, teacher, ids, negatives)
    assert value.shape == (2,)
    scores = (bank.teacher[negatives] @ unit(student).unsqueeze(2)).squeeze(2) / 0.07
    assert bank.log_partition[0].item() == pytest.approx(math.log(20 * scores.exp().mean().item()), rel=1e-5)
    estimated = bank.log_partition.clone()
    bank(10.0 * teacher, student, ids, negatives)
    assert torch.equal(bank.log_partition, estimated)
    other = make_bank()
    other.load_state_dict(bank.state_dict())
    torch.testing.assert_close(other(student, teacher, ids, negatives), value)
    assert set(bank.state_dict()) == {"student", "teacher", "log_partition"}


def test_both_models_embeddings_are_trained_and_the_bank_is_not() -> None:
    bank, ids = make_bank(), torch.tensor([3, 11])
    student, teacher = rows(2, 5).float().requires_grad_(), rows(2, 5, seed=1).float().requires_grad_()
    bank(student, teacher, ids, bank.draw(ids, 16)).sum().backward()
    for embeddings in (student, teacher):
        assert embeddings.grad is not None
        assert embeddings.grad.abs().max() > 0.0
    assert not list(bank.parameters())


def test_contrasting_teaches_a_student_to_agree_with_its_teacher() -> None:
    bank, ids = make_bank(20, 8), torch.arange(20)
    generator = torch.Generator().manual_seed(3)
    teacher, student = rows(20, 8).float(), rows(20, 8, seed=1).float().requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(200):
        loss = bank(student, teacher, ids, bank.draw(ids, 8, generator=generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bank.update(student, teacher, ids)
    assert F.cosine_similarity(student, teacher).min() > 0.8
