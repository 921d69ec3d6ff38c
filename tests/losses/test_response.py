from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.data.batch import IGNORE
from potstill.losses import response
from potstill.losses.divergence import forward_kl
from potstill.losses.response import cross_entropy


def logits(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(16, 5, generator=generator, dtype=torch.float64)


def test_unlabelled_rows_have_no_value_and_no_gradient() -> None:
    student = torch.randn(3, 4, requires_grad=True)
    values = cross_entropy(student, torch.tensor([2, IGNORE, 0]), label_smoothing=0.1)
    values.sum().backward()
    assert values[1].item() == 0.0
    assert student.grad is not None
    assert student.grad[1].abs().max() == 0.0
    assert student.grad[[0, 2]].abs().min() > 0.0


def test_the_mark_of_unlabelled_rows_is_that_of_the_data() -> None:
    assert inspect.signature(cross_entropy).parameters["ignore_index"].default == IGNORE


def test_label_smoothing_mixes_in_the_uniform_distribution() -> None:
    student, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    log_q = F.log_softmax(student, dim=-1)
    expected = -0.8 * log_q[range(6), labels] - 0.2 / 4 * log_q.sum(dim=-1)
    torch.testing.assert_close(cross_entropy(student, labels, label_smoothing=0.2), expected)


def test_a_batch_without_any_row_is_not_an_error() -> None:
    assert cross_entropy(torch.empty(0, 4), torch.empty(0, dtype=torch.long)).shape == (0,)


def test_a_focused_cross_entropy_is_the_focal_loss() -> None:
    student, labels = logits(0), torch.arange(16) % 5
    p = student.softmax(-1)[range(16), labels]
    expected = -((1.0 - p) ** 2) * p.log()
    torch.testing.assert_close(response.focused(cross_entropy(student, labels), 2.0), expected)


@pytest.mark.parametrize("focus", [1.0, 1.5, 2.0])
def test_a_row_rounded_to_just_below_zero_stays_finite_under_focus(focus: float) -> None:
    values = torch.tensor([-1e-7, 0.0, 1e-7, 3.0], requires_grad=True)
    focused = response.focused(values, focus)
    focused.sum().backward()
    assert focused.isfinite().all()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert focused[:3].abs().max() < 1e-12


def test_standardised_logits_forget_shift_and_scale_of_each_row() -> None:
    rows = logits(0)
    standardised = response.standardise_logits(rows)
    torch.testing.assert_close(standardised.mean(-1), torch.zeros(16, dtype=torch.float64))
    torch.testing.assert_close(standardised.std(-1), torch.ones(16, dtype=torch.float64))
    torch.testing.assert_close(response.standardise_logits(3.0 * rows + 7.0), standardised)


def test_a_row_of_equal_logits_is_standardised_to_zeros_with_a_finite_gradient() -> None:
    rows = torch.ones(2, 5, requires_grad=True)
    standardised = response.standardise_logits(rows)
    standardised[:, 0].sum().backward()
    assert standardised.tolist() == [[0.0] * 5] * 2
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


def test_centred_logit_mse_is_twice_the_limit_of_forward_kl_at_high_temperature() -> None:
    student, teacher = logits(0), logits(1)
    limit = forward_kl(student, teacher, temperature=1e4)
    torch.testing.assert_close(response.logit_mse(student, teacher), 2.0 * limit, rtol=1e-3, atol=0.0)


def test_plain_logit_mse_counts_what_a_constant_adds_and_centred_does_not() -> None:
    student, teacher = logits(0), logits(1)
    plain, centred = (response.logit_mse(student, teacher, centre=centre) for centre in (False, True))
    torch.testing.assert_close(plain, (student - teacher).square().mean(-1))
    torch.testing.assert_close(plain - centred, (student - teacher).mean(-1).square())
    torch.testing.assert_close(response.logit_mse(student + 3.0, teacher), centred)


def test_the_parts_of_dkd_make_up_forward_kl_row_by_row() -> None:
    student, teacher, labels = logits(0), logits(1), torch.arange(16) % 5
    target, non_target = response.dkd_parts(student, teacher, labels, temperature=2.0)
    p = (teacher / 2.0).softmax(-1)[range(16), labels]
    expected = forward_kl(student, teacher, temperature=2.0, t2_scaling=False)
    torch.testing.assert_close(target + (1.0 - p) * non_target, expected)


def test_dkd_of_a_teacher_certain_of_the_label_is_finite() -> None:
    teacher = torch.tensor([[1e4, 0.0, 1.0]])
    student = torch.tensor([[0.0, 1.0, 0.0]], requires_grad=True)
    values = response.dkd(student, teacher, torch.tensor([0]))
    values.sum().backward()
    assert values.isfinite().all()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_rows_without_a_label_are_nothing_to_dkd() -> None:
    student = logits(0).requires_grad_()
    values = response.dkd(student, logits(1), torch.tensor([0, IGNORE] * 8))
    values.sum().backward()
    assert values[1::2].tolist() == [0.0] * 8
    assert student.grad is not None
    assert student.grad[1::2].abs().max() == 0.0
    assert values[::2].min() > 0.0


def test_dist_is_one_minus_the_correlation_of_rows_and_of_columns() -> None:
    student, teacher = logits(0), logits(1)
    q, p = (student / 2.0).softmax(-1), (teacher / 2.0).softmax(-1)
    rows = [1.0 - torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(q, p, strict=True)]
    columns = [1.0 - torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(q.T, p.T, strict=True)]
    options = {"temperature": 2.0, "t2_scaling": False}
    torch.testing.assert_close(response.dist_inter(student, teacher, **options), torch.stack(rows))
    torch.testing.assert_close(response.dist_intra(student, teacher, **options), torch.stack(columns))


def test_a_single_row_has_no_relation_within_a_class() -> None:
    student = logits(0)[:1].requires_grad_()
    values = response.dist_intra(student, logits(1)[:1])
    values.sum().backward()
    assert values.tolist() == [0.0] * 5
    assert student.grad is not None
    assert student.grad.abs().max() == 0.0


def test_several_temperatures_are_averaged() -> None:
    student, teacher = logits(0), logits(1)
    expected = (forward_kl(student, teacher, temperature=2.0) + forward_kl(student, teacher, temperature=5.0)) / 2.0
    torch.testing.assert_close(response.multi_temperature_kl(student, teacher, temperatures=(2.0, 5.0)), expected)


def test_the_consistencies_compare_gram_matrices_over_rows_and_over_classes() -> None:
    student, teacher = logits(0), logits(1)
    q, p = (student / 4.0).softmax(-1), (teacher / 4.0).softmax(-1)
    rows = torch.tensor([sum(float(q[n] @ q[m] - p[n] @ p[m]) ** 2 for m in range(16)) for n in range(16)])
    classes = [sum(float(q[:, c] @ q[:, k] - p[:, c] @ p[:, k]) ** 2 for k in range(5)) for c in range(5)]
    torch.testing.assert_close(response.batch_consistency(student, teacher, temperature=4.0), rows.double())
    torch.testing.assert_close(
        response.class_consistency(student, teacher, temperature=4.0), torch.tensor(classes, dtype=torch.float64)
    )


@pytest.mark.parametrize("loss", [response.batch_consistency, response.class_consistency])
def test_equal_models_are_consistent_and_the_gradient_is_the_derivative(loss: Callable[..., Tensor]) -> None:
    teacher = logits(1)
    assert loss(teacher, teacher).abs().max() == 0.0
    assert torch.autograd.gradcheck(lambda student: loss(student, teacher), logits(0).requires_grad_())
