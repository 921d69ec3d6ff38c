from __future__ import annotations

import pytest
import torch

from potstill.losses.padding import padded


def test_positions_stand_in_their_own_example_and_zeros_in_the_rest() -> None:
    states = torch.arange(1.0, 9.0).view(4, 2).requires_grad_()
    examples, mask = padded(states, torch.tensor([1, 3]))
    assert examples.tolist() == [[[1, 2], [0, 0], [0, 0]], [[3, 4], [5, 6], [7, 8]]]
    assert mask.tolist() == [[True, False, False], [True, True, True]]
    examples.square().sum().backward()
    torch.testing.assert_close(states.grad, 2 * states.detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_what_was_taken_apart_is_put_together(dtype: torch.dtype) -> None:
    states = torch.randn(9, 3).to(dtype)
    examples, mask = padded(states, torch.tensor([2, 4, 3]))
    assert examples.dtype == dtype
    assert torch.equal(examples[mask], states)


def test_images_are_whole_already_and_no_texts_are_no_rows() -> None:
    tokens = torch.randn(2, 3, 4)
    examples, mask = padded(tokens, None)
    assert examples is tokens
    assert mask.all()
    examples, mask = padded(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    assert len(examples) == len(mask) == 0
