from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses import attention
from potstill.losses.divergence import forward_kl

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SCORES, STATES = (2, 4, 5, 5), (2, 5, 8)
MAPS: dict[str, Callable[..., Tensor]] = {
    "attention_transfer": attention.attention_transfer,
    "attention_transfer, first power": lambda *maps: attention.attention_transfer(*maps, power=1.0),
    "attention_transfer, masked": lambda *maps: attention.attention_transfer(*maps, mask_BS=MASK),
    "nst": attention.nst,
}
PADDED: dict[str, tuple[tuple[int, ...], Callable[..., Tensor]]] = {
    "attention_score_mse": (SCORES, attention.attention_score_mse),
    "attention_kl": (SCORES, attention.attention_kl),
    "relation_kl": (STATES, lambda *args: attention.relation_kl(*args, num_heads=4)),
    "minilm_v2": (
        STATES,
        lambda student, teacher, mask: attention.minilm_v2([student] * 3, [teacher] * 3, mask, num_heads=2),
    ),
}
every_map_loss = pytest.mark.parametrize("loss", MAPS.values(), ids=MAPS.keys())
every_padded_loss = pytest.mark.parametrize(("shape", "loss"), PADDED.values(), ids=PADDED.keys())


def gradient_of(loss: Callable[[Tensor], Tensor], student: Tensor) -> Tensor:
    student = student.clone().requires_grad_()
    return torch.autograd.grad(loss(student).sum(), student)[0]


@every_map_loss
def test_maps_of_different_channels_give_one_value_an_example(loss: Callable[..., Tensor]) -> None:
    student, teacher = rows(2, 5, 3), rows(2, 5, 4, seed=1)
    assert loss(student, teacher).shape == (2,)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher), student.requires_grad_())


@every_map_loss
def test_equal_maps_are_left_alone_and_a_shuffled_teacher_is_not(loss: Callable[..., Tensor]) -> None:
    teacher = rows(2, 5, 3)
    assert loss(teacher, teacher).abs().max() < 1e-14
    assert gradient_of(lambda x: loss(x, teacher), teacher).abs().max() < 1e-14
    assert (loss(teacher, teacher.roll(1, dims=1)) > 1e-2).all()


@every_map_loss
def test_dead_maps_give_finite_values_and_gradients(loss: Callable[..., Tensor]) -> None:
    teacher = rows(2, 5, 3).float()
    assert loss(torch.zeros(2, 5, 3), teacher).isfinite().all()
    assert gradient_of(lambda x: loss(x, teacher), torch.zeros(2, 5, 3)).isfinite().all()


def test_a_map_says_where_and_not_how_much() -> None:
    student, teacher = rows(2, 5, 3), rows(2, 5, 4, seed=1)
    expected = attention.attention_transfer(student, teacher)
    torch.testing.assert_close(attention.attention_transfer(100.0 * student, -0.01 * teacher), expected)
    maps = [F.normalize(x.square().mean(dim=2), dim=1) for x in (student, teacher)]
    torch.testing.assert_close(expected, (maps[0] - maps[1]).square().mean(dim=1))


def test_padding_is_no_place_of_a_map() -> None:
    student, teacher = rows(2, 5, 3), rows(2, 5, 4, seed=1)
    short = attention.attention_transfer(student[1:, :3], teacher[1:, :3])
    torch.testing.assert_close(attention.attention_transfer(student, teacher, mask_BS=MASK)[1:], short)


def test_discrepancy_is_the_distance_of_mean_outer_products() -> None:
    student, teacher = rows(2, 5, 3), rows(2, 5, 4, seed=1)
    moments = []
    for features in (student, teacher):
        maps = F.normalize(features, dim=1)
        moments.append(torch.einsum("bsc,btc->bst", maps, maps) / features.shape[2])
    expected = (moments[0] - moments[1]).square().sum(dim=(1, 2))
    torch.testing.assert_close(attention.nst(student, teacher), expected)
    torch.testing.assert_close(attention.nst(student[:, :, [2, 0, 1]], teacher), expected)


@every_padded_loss
def test_padding_changes_neither_value_nor_gradient(shape: tuple[int, ...], loss: Callable[..., Tensor]) -> None:
    """The second example alone, and beside a longer one with something wild in its padding."""
    student, teacher = rows(*shape), rows(*shape, seed=1)
    cut = (slice(1, 2), slice(None), slice(3), slice(3)) if shape == SCORES else (slice(1, 2), slice(3))
    padding = ~(MASK[1].bool().unsqueeze(0) & (MASK[1].bool().unsqueeze(1) if shape == SCORES else True))
    wild = 1e30 if shape == SCORES else 1e6
    for tensor in (student, teacher):
        tensor[1] = torch.where(padding if shape == SCORES else padding.T, wild, tensor[1])
    alone = torch.ones(1, 3)
    short = loss(student[cut], teacher[cut], alone)
    long = loss(student, teacher, MASK)
    torch.testing.assert_close(long[-len(short) :], short)
    gradient = gradient_of(lambda x: loss(x, teacher, MASK), student)
    torch.testing.assert_close(gradient[cut], gradient_of(lambda x: loss(x, teacher[cut], alone), student[cut]))
    rest = gradient[1].clone()
    rest[cut[1:]] = 0.0
    assert rest.abs().max() == 0.0


@every_padded_loss
def test_the_gradient_of_attended_positions_is_the_derivative(
    shape: tuple[int, ...], loss: Callable[..., Tensor]
) -> None:
    student, teacher = rows(*shape), rows(*shape, seed=1)
    assert torch.autograd.gradcheck(lambda x: loss(x, teacher, MASK), student.requires_grad_())


@every_padded_loss
def test_equal_models_are_left_alone(shape: tuple[int, ...], loss: Callable[..., Tensor]) -> None:
    teacher = rows(*shape)
    assert loss(teacher, teacher, MASK).abs().max() < 1e-14
    assert gradient_of(lambda x: loss(x, teacher, MASK), teacher).abs().max() < 1e-14


@every_padded_loss
def test_bfloat16_is_compared_in_float32(shape: tuple[int, ...], loss: Callable[..., Tensor]) -> None:
    student, teacher = rows(*shape).bfloat16(), rows(*shape, seed=1).bfloat16()
    value = loss(student, teacher, MASK)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), loss(student.double(), teacher.double(), MASK), rtol=1e-4, atol=1e-6)


@every_padded_loss
def test_an_empty_batch_has_no_rows(shape: tuple[int, ...], loss: Callable[..., Tensor]) -> None:
    nothing = rows(*shape)[:0].requires_grad_()
    value = loss(nothing, nothing.detach(), MASK[:0])
    value.sum().backward()
    assert value.shape == (0,)


def test_there_is_one_value_for_each_pair_or_position() -> None:
    scores, states = rows(*SCORES), rows(*STATES)
    assert attention.attention_score_mse(scores, scores, MASK).shape == (25 + 9,)
    assert attention.attention_kl(scores, scores, MASK).shape == (5 + 3,)
    assert attention.relation_kl(states, states, MASK, num_heads=2).shape == (5 + 3,)


def test_attention_is_the_teachers_first_and_takes_probabilities_as_logarithms() -> None:
    student, teacher = rows(*SCORES), rows(*SCORES, seed=1)
    everything = torch.ones(2, 5)
    expected = forward_kl(student.flatten(0, 2), teacher.flatten(0, 2)).view(2, 4, 5).mean(dim=1).flatten()
    torch.testing.assert_close(attention.attention_kl(student, teacher, everything), expected)
    logs = student.log_softmax(-1), teacher.log_softmax(-1)
    torch.testing.assert_close(attention.attention_kl(*logs, everything), expected)


def test_a_masked_distribution_is_that_of_what_is_left() -> None:
    student, teacher = rows(3, 6), rows(3, 6, seed=1)
    mask = torch.tensor([[True, False, True, True, False, True]]).expand(3, 6)
    kept = forward_kl(student[:, mask[0]], teacher[:, mask[0]])
    torch.testing.assert_close(attention.masked_kl(student, teacher, mask), kept)


def test_the_width_is_split_into_heads_and_never_the_tokens() -> None:
    states = rows(*STATES)
    scores = attention.relation_scores(states, 4)
    assert scores.shape == (2, 4, 5, 5)
    for head in range(4):
        part = states[:, :, 2 * head : 2 * head + 2]
        torch.testing.assert_close(scores[:, head], part @ part.transpose(1, 2) / 2**0.5)


@pytest.mark.parametrize("num_heads", [0, 3])
def test_heads_that_do_not_divide_the_width_are_refused(num_heads: int) -> None:
    with pytest.raises(ValueError, match=f"width of 8 cannot be split into {num_heads} heads"):
        attention.relation_scores(rows(*STATES), num_heads)


def test_minilm_is_the_sum_of_its_parts_and_widths_may_differ() -> None:
    scores, values = (rows(*SCORES), rows(*SCORES, seed=1)), (rows(2, 5, 8), rows(2, 5, 12, seed=1))
    parts = attention.attention_kl(*scores, MASK) + attention.relation_kl(*values, MASK, num_heads=4)
    torch.testing.assert_close(attention.minilm(*scores, *values, MASK), parts)
    others = rows(2, 5, 4, seed=2), rows(2, 5, 8, seed=3)
    both = sum(attention.relation_kl(*pair, MASK, num_heads=2) for pair in (values, others))
    student, teacher = zip(values, others, strict=True)
    torch.testing.assert_close(attention.minilm_v2(student, teacher, MASK, num_heads=2), both)
