from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from potstill.losses import divergence

DIVERGENCES: dict[str, Callable[..., Tensor]] = {
    "forward_kl": divergence.forward_kl,
    "reverse_kl": divergence.reverse_kl,
    "jsd": lambda student, teacher, **options: divergence.jsd(student, teacher, beta=0.3, **options),
    "skew_forward_kl": lambda student, teacher, **options: divergence.skew_forward_kl(
        student, teacher, skew=0.1, **options
    ),
    "skew_reverse_kl": lambda student, teacher, **options: divergence.skew_reverse_kl(
        student, teacher, skew=0.1, **options
    ),
    "adaptive_kl": divergence.adaptive_kl,
}


def logits(seed: int, scale: float = 1.0, num_rows: int = 32, num_classes: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64)


def test_forward_and_reverse_are_not_swapped() -> None:
    student, teacher = logits(0), logits(1)
    forward = kl_divergence(Categorical(logits=teacher), Categorical(logits=student))
    reverse = kl_divergence(Categorical(logits=student), Categorical(logits=teacher))
    torch.testing.assert_close(divergence.forward_kl(student, teacher), forward)
    torch.testing.assert_close(divergence.reverse_kl(student, teacher), reverse)


@pytest.mark.parametrize("divergence_of", DIVERGENCES.values(), ids=DIVERGENCES.keys())
def test_temperature_divides_both_logits_and_scaling_is_its_square(divergence_of: Callable[..., Tensor]) -> None:
    student, teacher = logits(0), logits(1)
    tempered = divergence_of(student / 3.0, teacher / 3.0)
    torch.testing.assert_close(divergence_of(student, teacher, temperature=3.0, t2_scaling=False), tempered)
    torch.testing.assert_close(divergence_of(student, teacher, temperature=3.0), 9.0 * tempered)


def test_forward_ce_is_forward_kl_and_the_teachers_entropy() -> None:
    student, teacher = logits(0), logits(1)
    entropy = divergence.entropy(teacher, temperature=2.0)
    expected = divergence.forward_kl(student, teacher, temperature=2.0) + 4.0 * entropy
    torch.testing.assert_close(divergence.forward_ce(student, teacher, temperature=2.0), expected)


@pytest.mark.parametrize("temperature", [2.0, 4.0, 8.0, 16.0, 32.0])
def test_the_temperature_does_not_change_the_size_of_the_gradient(temperature: float) -> None:
    student, teacher = logits(0, num_rows=256).requires_grad_(), logits(1, num_rows=256)

    def gradient_norm(temperature: float) -> float:
        loss = divergence.forward_kl(student, teacher, temperature=temperature).sum()
        return torch.autograd.grad(loss, student)[0].norm().item()

    assert gradient_norm(temperature) == pytest.approx(gradient_norm(1.0), rel=0.25)


@pytest.mark.parametrize(("beta", "limit"), [(0.0, divergence.forward_kl), (1.0, divergence.reverse_kl)])
def test_the_ends_of_jsd_are_the_limits_of_its_interior(beta: float, limit: Callable[..., Tensor]) -> None:
    student, teacher = logits(0), logits(1)
    inside = divergence.jsd(student, teacher, beta=abs(beta - 1e-6))
    torch.testing.assert_close(inside / 1e-6, limit(student, teacher), rtol=1e-4, atol=0.0)
    at_end = divergence.jsd(student, teacher, beta=beta, temperature=2.0, t2_scaling=False)
    torch.testing.assert_close(at_end, limit(student, teacher, temperature=2.0, t2_scaling=False))


def test_beta_weighs_the_teacher() -> None:
    student, teacher = logits(0), logits(1, scale=3.0)
    mirrored = divergence.jsd(teacher, student, beta=0.9)
    torch.testing.assert_close(divergence.jsd(student, teacher, beta=0.1), mirrored)
    mixture = 0.1 * teacher.softmax(-1) + 0.9 * student.softmax(-1)
    to_mixture = kl_divergence(Categorical(logits=teacher), Categorical(probs=mixture))
    from_student = kl_divergence(Categorical(logits=student), Categorical(probs=mixture))
    torch.testing.assert_close(divergence.jsd(student, teacher, beta=0.1), 0.1 * to_mixture + 0.9 * from_student)


def test_certain_models_that_disagree_give_finite_values_and_gradients() -> None:
    student = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 0.0, 1e4]])
    expected = {
        **{"forward_kl": 2e4, "reverse_kl": 2e4, "jsd": -0.3 * math.log(0.3) - 0.7 * math.log(0.7)},
        **{"skew_forward_kl": -math.log(0.1), "skew_reverse_kl": -math.log(0.1), "adaptive_kl": 2e4},
    }
    for name, divergence_of in DIVERGENCES.items():
        value = divergence_of(student, teacher)
        (gradient,) = torch.autograd.grad(value.sum(), student)
        assert value.item() == pytest.approx(expected[name], rel=1e-5), name
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("divergence_of", DIVERGENCES.values(), ids=DIVERGENCES.keys())
def test_models_a_bfloat16_apart_are_at_a_positive_distance_in_every_row(divergence_of: Callable[..., Tensor]) -> None:
    teacher = logits(0, scale=3.0, num_classes=300)
    student = teacher + 0.03 * logits(1, num_classes=300)
    assert (divergence_of(student.bfloat16(), teacher.bfloat16()) > 0.0).all()


@pytest.mark.parametrize("divergence_of", DIVERGENCES.values(), ids=DIVERGENCES.keys())
def test_equal_models_with_a_large_vocabulary_are_at_distance_zero_in_float32(
    divergence_of: Callable[..., Tensor],
) -> None:
    rows = logits(0, scale=3.0, num_rows=8, num_classes=30_000).float()
    assert divergence_of(rows, rows, temperature=4.0).abs().max() < 3e-7


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_the_rounding_of_log_probabilities_does_not_drown_jsd(beta: float) -> None:
    teacher = logits(0, scale=3.0, num_rows=8, num_classes=30_000).float()
    student = (teacher + 0.01 * logits(1, num_rows=8, num_classes=30_000)).float()
    exact = divergence.jsd(student.double(), teacher.double(), beta=beta)
    torch.testing.assert_close(divergence.jsd(student, teacher, beta=beta).double(), exact, rtol=0.01, atol=0.0)


def test_entropy_runs_from_certainty_to_log_of_the_number_of_classes() -> None:
    rows = torch.stack([torch.zeros(8), torch.tensor([100.0] + [0.0] * 7)])
    torch.testing.assert_close(divergence.entropy(rows), torch.tensor([math.log(8), 0.0]))


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_rows_come_back_in_the_dtype_losses_are_computed_in(given: torch.dtype, computed: torch.dtype) -> None:
    student, teacher = logits(0).to(given), logits(1).to(given)
    for divergence_of in (*DIVERGENCES.values(), divergence.forward_ce):
        assert divergence_of(student, teacher).dtype == computed
        assert divergence_of(student, teacher).shape == (32,)


def test_the_target_of_forward_ce_can_be_sharper_than_the_student() -> None:
    student, teacher = logits(0), logits(1)
    values = divergence.forward_ce(student, teacher, temperature=2.0, teacher_temperature=0.5, t2_scaling=False)
    torch.testing.assert_close(values, divergence.forward_ce(student / 2.0, teacher / 0.5))
    same = divergence.forward_ce(student, teacher, temperature=2.0, teacher_temperature=2.0)
    torch.testing.assert_close(same, divergence.forward_ce(student, teacher, temperature=2.0))


def test_the_skew_is_the_part_of_the_model_that_is_compared() -> None:
    student, teacher = logits(0), logits(1, scale=3.0)
    p, q = teacher.softmax(-1), student.softmax(-1)
    forward = kl_divergence(Categorical(probs=p), Categorical(probs=0.1 * p + 0.9 * q))
    reverse = kl_divergence(Categorical(probs=q), Categorical(probs=0.1 * q + 0.9 * p))
    torch.testing.assert_close(divergence.skew_forward_kl(student, teacher, skew=0.1), forward)
    torch.testing.assert_close(divergence.skew_reverse_kl(student, teacher, skew=0.1), reverse)


def test_without_skew_the_plain_divergences_remain() -> None:
    student, teacher = logits(0), logits(1)
    for skewed, plain in [
        (divergence.skew_forward_kl, divergence.forward_kl),
        (divergence.skew_reverse_kl, divergence.reverse_kl),
    ]:
        expected = plain(student, teacher, temperature=2.0)
        torch.testing.assert_close(skewed(student, teacher, skew=0.0, temperature=2.0), expected)
        torch.testing.assert_close(skewed(student, teacher, skew=1e-9, temperature=2.0), expected)


def test_the_gradient_of_skew_forward_kl_is_its_closed_form() -> None:
    """d/ds_c = (1 - a) q_c (sum_k q_k p_k / m_k - p_c / m_c), with m = a p + (1 - a) q."""
    student, teacher = logits(0).requires_grad_(), logits(1)
    (gradient,) = torch.autograd.grad(divergence.skew_forward_kl(student, teacher, skew=0.3).sum(), student)
    p, q = teacher.softmax(-1), student.detach().softmax(-1)
    ratio = p / (0.3 * p + 0.7 * q)
    torch.testing.assert_close(gradient, 0.7 * q * ((q * ratio).sum(-1, keepdim=True) - ratio))


HEAD_ROW = torch.tensor([[0.3, 0.1, 0.4, 0.2]], dtype=torch.float64)  # of the teacher
STUDENT_ROW = torch.tensor([[0.2, 0.25, 0.35, 0.2]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("head_mass", "head_share"),
    [(0.5, 0.05 / 0.3), (0.75, 0.15 / 0.3), (0.3, 0.05 / 0.3), (0.95, 0.15 / 0.3)],
    ids=["the first class alone", "two classes", "the first class whatever its mass", "not the last class"],
)
def test_adaptive_kl_weighs_by_the_gap_on_the_teachers_head(head_mass: float, head_share: float) -> None:
    student, teacher = STUDENT_ROW.log(), HEAD_ROW.log()
    expected = head_share * divergence.forward_kl(student, teacher)
    expected = expected + (1.0 - head_share) * divergence.reverse_kl(student, teacher)
    torch.testing.assert_close(divergence.adaptive_kl(student, teacher, head_mass=head_mass), expected)


def test_the_weights_of_adaptive_kl_are_constants_to_the_gradient() -> None:
    student, teacher = STUDENT_ROW.log().requires_grad_(), HEAD_ROW.log()

    def gradient(values: Tensor) -> Tensor:
        return torch.autograd.grad(values.sum(), student)[0]

    share = 0.05 / 0.3
    expected = share * gradient(divergence.forward_kl(student, teacher))
    expected = expected + (1.0 - share) * gradient(divergence.reverse_kl(student, teacher))
    torch.testing.assert_close(gradient(divergence.adaptive_kl(student, teacher)), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adaptive_kl_of_equal_models_is_zero_and_not_zero_by_zero(dtype: torch.dtype) -> None:
    student = logits(0).to(dtype).requires_grad_()
    values = divergence.adaptive_kl(student, student.detach())
    values.sum().backward()
    assert values.tolist() == [0.0] * 32
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-6


def test_total_variation_runs_from_zero_to_one() -> None:
    certain = torch.tensor([[1e4, 0.0], [1e4, 0.0], [0.0, math.log(3.0)]])
    other = torch.tensor([[0.0, 1e4], [1e4, 0.0], [0.0, 0.0]])
    assert divergence.tvd(certain, other).tolist() == pytest.approx([1.0, 0.0, 0.25])


@pytest.mark.parametrize("divergence_of", [divergence.forward_kl, divergence.forward_ce])
def test_the_gradient_of_forward_kl_is_temperature_times_the_gap_of_probabilities(
    divergence_of: Callable[..., Tensor],
) -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    (gradient,) = torch.autograd.grad(divergence_of(student, teacher, temperature=3.0).sum(), student)
    torch.testing.assert_close(gradient, 3.0 * ((student / 3.0).softmax(-1) - (teacher / 3.0).softmax(-1)))


def test_the_gradient_of_reverse_kl_is_its_closed_form() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    (gradient,) = torch.autograd.grad(divergence.reverse_kl(student, teacher, temperature=3.0).sum(), student)
    log_q, log_p = (student.detach() / 3.0).log_softmax(-1), (teacher / 3.0).log_softmax(-1)
    surplus = log_q - log_p - (log_q.exp() * (log_q - log_p)).sum(-1, keepdim=True)
    torch.testing.assert_close(gradient, 3.0 * log_q.exp() * surplus)


def test_the_gradient_of_total_variation_is_its_closed_form() -> None:
    student, teacher = logits(0).requires_grad_(), logits(1)
    (gradient,) = torch.autograd.grad(divergence.tvd(student, teacher).sum(), student)
    p, q = teacher.softmax(-1), student.detach().softmax(-1)
    sign = (q - p).sign()
    torch.testing.assert_close(gradient, 0.5 * q * (sign - (q * sign).sum(-1, keepdim=True)))
