"""Weights of examples: whose they are, what they add up to, and which are refused."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from potstill.config.schema import ColumnsConfig
from potstill.data.module import DataModule
from potstill.errors import UserError
from tests.data.examples import build, config, queries

COLUMNS = ColumnsConfig(text="text", label="intent", weight="weight")


def weighted(num_examples: int, weights: list[float], **changes: object) -> DataModule:
    """`queries` with these weights, over and over."""
    repeated = [weights[number % len(weights)] for number in range(num_examples)]
    return build({"train": queries(num_examples).add_column("weight", repeated)}, config(columns=COLUMNS, **changes))  # type: ignore[call-arg]


def test_weights_of_the_training_examples_are_in_their_batches() -> None:
    data = weighted(60, [1.0, 3.0])
    batches = list(data.train_dataloader())
    weights = torch.cat([batch.weights for batch in batches if batch.weights is not None])
    assert weights.mean().item() == pytest.approx(1.0)
    assert weights.max().item() == pytest.approx(3 * weights.min().item())
    numbers = torch.cat([batch.numbers for batch in batches if batch.numbers is not None])
    assert weights.tolist() == [data.examples["train"]["weight"][number] for number in numbers.tolist()]
    assert data.fingerprint != weighted(60, [1.0, 2.0]).fingerprint
    assert all(batch.weights is None for batch in data.val_dataloader()), "validation counts all alike"


def test_a_batch_keeps_weights_with_their_examples_however_it_is_cut() -> None:
    batch = next(iter(weighted(60, [1.0, 3.0]).train_dataloader()))
    assert batch.weights is not None
    taken = batch.take([2, 0])
    assert taken.weights is not None
    assert taken.weights.tolist() == batch.weights[[2, 0]].tolist()
    assert len(batch.empty().weights) == 0  # type: ignore[arg-type]


def test_the_mean_is_taken_over_the_tokens_of_a_language_model() -> None:
    words = ["pay my rent today", "train"]
    table = Dataset.from_dict({"text": [f"{words[n % 2]} {n}" for n in range(60)], "weight": [1.0, 2.0] * 30})
    data = build(
        {"train": table}, config(task="causal_lm", columns=ColumnsConfig(text="text", weight="weight"), slices=[])
    )
    table = data.examples["train"]
    total = sum(weight * rows for weight, rows in zip(table["weight"][:], table["num_rows"][:], strict=True))
    assert total == pytest.approx(sum(table["num_rows"][:]), rel=1e-5)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), None])
def test_a_weight_that_is_none_is_refused_with_its_example(weight: float | None) -> None:
    with pytest.raises(UserError, match=r"no finite number >= 0, in example 1 of the train split"):
        weighted(60, [1.0, weight])  # type: ignore[list-item]


def test_weights_of_zero_alone_leave_nothing() -> None:
    with pytest.raises(UserError, match="0 for every training example"):
        weighted(60, [0.0])
