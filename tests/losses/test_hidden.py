from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.hidden import POOLINGS, embedding_l2, hidden_cosine, hidden_mse, patient, pool

LOSSES = {"mse": hidden_mse, "cosine": hidden_cosine, "patient": patient, "l2": embedding_l2}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_row_is_averaged_over_its_width() -> None:
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    expected = torch.stack([F.mse_loss(mine, theirs) for mine, theirs in zip(student, teacher, strict=True)])
    torch.testing.assert_close(hidden_mse(student, teacher), expected)


def test_an_image_is_one_row() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    values = hidden_mse(student, teacher)
    assert values.shape == (2,)
    assert values.mean().item() == pytest.approx(F.mse_loss(student, teacher).item())


@every_loss
def test_widths_that_differ_are_not_broadcast(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(AssertionError):
        loss(torch.randn(6, 1), torch.randn(6, 5))


def test_half_precision_states_are_compared_in_float32() -> None:
    student, teacher = torch.full((1, 4), 300.0).half(), torch.zeros(1, 4).half()  # 300^2 is not a float16
    assert hidden_mse(student, teacher).item() == 90000.0
    assert embedding_l2(student, teacher).item() == 600.0


@every_loss
def test_the_gradient_is_the_derivative_and_vanishes_where_the_models_agree(loss: Callable[..., Tensor]) -> None:
    student, teacher = rows(4, 3, 5, seed=0).requires_grad_(), rows(4, 3, 5, seed=1)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student)
    value = loss(student, student.detach())
    (gradient,) = torch.autograd.grad(value.sum(), student)
    assert value.abs().max() == 0.0
    assert gradient.abs().max() < 1e-15


def test_the_cosine_is_that_of_torch_and_blind_to_length() -> None:
    student, teacher = rows(6, 5, seed=0), rows(6, 5, seed=1)
    expected = F.cosine_embedding_loss(student, teacher, torch.ones(6), reduction="none")
    torch.testing.assert_close(hidden_cosine(student, teacher), expected)
    torch.testing.assert_close(hidden_cosine(1e-3 * student, 1e3 * teacher), expected)
    torch.testing.assert_close(hidden_cosine(teacher, -teacher), torch.full((6,), 2.0, dtype=torch.float64))


def test_nearly_equal_directions_are_not_at_a_negative_distance_in_float32() -> None:
    teacher = rows(1000, 64).float()
    values = hidden_cosine(teacher * (1 + 1e-7 * rows(1000, 64, seed=1).float()), 3.0 * teacher)
    assert values.min() >= 0.0
    assert values.max() < 1e-12


def test_a_zero_vector_gives_finite_values_and_gradients() -> None:
    student = torch.zeros(2, 5, requires_grad=True)
    for loss in LOSSES.values():
        value = loss(student, torch.ones(2, 5))
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert value.isfinite().all()
        assert gradient.isfinite().all()


def test_each_layer_is_brought_to_length_one_before_layers_are_averaged() -> None:
    student, teacher = rows(6, 2, 5, seed=0), rows(6, 2, 5, seed=1)
    separately = torch.stack([patient(student[:, layer], teacher[:, layer]) for layer in range(2)]).mean(dim=0)
    torch.testing.assert_close(patient(student, teacher), separately)
    torch.testing.assert_close(patient(student * torch.tensor([[[1.0], [9.0]]]), teacher), separately)


def test_the_distance_is_that_of_torch() -> None:
    student, teacher = rows(6, 5, seed=0), rows(6, 5, seed=1)
    expected = F.pairwise_distance(student, teacher, eps=0.0)
    torch.testing.assert_close(embedding_l2(student, teacher), expected, rtol=0.0, atol=2e-6)


@pytest.mark.parametrize("padded", ["right", "left"])
def test_pooling_sees_attended_positions_only(padded: str) -> None:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    hidden = rows(2, 4, 3)
    if padded == "left":
        mask, hidden = mask.flip(1), hidden.flip(1)
    attended = [example[keep] for example, keep in zip(hidden, mask.bool(), strict=True)]
    expected = {
        "first": [example[0] for example in attended],
        "mean": [example.mean(dim=0) for example in attended],
        "last": [example[-1] for example in attended],
    }
    assert set(expected) == set(POOLINGS)
    for how, vectors in expected.items():
        torch.testing.assert_close(pool(hidden, mask, how), torch.stack(vectors))


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="'max' is no pooling; choose one of first, mean, last"):
        pool(rows(1, 2, 3), torch.ones(1, 2), "max")
