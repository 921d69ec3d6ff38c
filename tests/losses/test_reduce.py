from __future__ import annotations

import pytest
import torch
from torch import Tensor

from potstill.losses.reduce import mean_over


@pytest.mark.parametrize("total_rows", [8, torch.tensor(8)], ids=["int", "tensor"])
def test_a_micro_batch_is_divided_by_the_rows_of_the_whole_batch(total_rows: int | Tensor) -> None:
    assert mean_over(torch.tensor([2.0, 4.0, 6.0]), total_rows).item() == 1.5


@pytest.mark.parametrize("total_rows", [0, torch.tensor(0)], ids=["int", "tensor"])
def test_no_rows_give_zero_and_not_nan(total_rows: int | Tensor) -> None:
    values = torch.zeros(3, requires_grad=True)
    mean = mean_over(values * 2.0, total_rows)
    mean.backward()
    assert mean.item() == 0.0
    assert values.grad is not None
    assert values.grad.isfinite().all()
