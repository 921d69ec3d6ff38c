from __future__ import annotations

import inspect

import torch
import torch.nn.functional as F

from potstill.data.batch import IGNORE
from potstill.losses.response import cross_entropy


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
