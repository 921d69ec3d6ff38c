"""What is stored of a row is what the docs say of it: all, the most probable classes, or a fair sample."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from potstill.losses.sparse import SparseLogits
from potstill.signals.codecs import Codec, Exact, Sampled, Stored, TopK

SIZES = [3, 0, 5]


def logits(num_classes: int = 50, num_rows: int = sum(SIZES)) -> Tensor:
    return 3.0 * torch.randn(num_rows, num_classes, generator=torch.Generator().manual_seed(0))


def through(codec: Codec, rows: Tensor, sizes: list[int] | None = None) -> SparseLogits:
    """`rows` as they come back."""
    sizes = sizes or SIZES
    encoded = codec.encode(rows, sizes, list(range(len(sizes))))
    stored = [Stored(each.data, size) for each, size in zip(encoded, sizes, strict=True)]
    return codec.decode(stored, codec.layout(rows))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_exact_rows_come_back_bit_for_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    rows = torch.randn(sum(SIZES), *shape).to(dtype)
    found: Tensor = through(Exact(), rows)  # type: ignore[assignment]
    assert found.dtype == dtype
    assert torch.equal(found, rows)


def test_rows_that_are_rounded_come_back_in_the_models_dtype() -> None:
    rows = logits()
    found: Tensor = through(Exact("bfloat16"), rows)  # type: ignore[assignment]
    assert torch.equal(found, rows.bfloat16().float())


@pytest.mark.parametrize("values", ["float16", "uint8"])
def test_the_most_probable_classes_are_kept_with_their_probabilities(values: str) -> None:
    rows, codec = logits(), TopK(6, values=values)
    expected, found = rows.log_softmax(dim=-1).topk(6), through(codec, rows)
    assert torch.equal(found.ids.long(), expected.indices)
    torch.testing.assert_close(found.log_p.float(), expected.values, rtol=1e-3, atol=0.1 if values == "uint8" else 1e-3)


def test_a_top_p_keeps_the_fewest_classes_that_reach_it() -> None:
    rows = logits()
    found = through(TopK(40, top_p=0.6), rows)
    p = found.log_p.float().exp()
    assert (p.sum(dim=-1) >= 0.6 - 1e-3).all()
    least = p.masked_fill(p == 0.0, 2.0).amin(dim=-1)
    assert (p.sum(dim=-1) - least < 0.6 + 1e-3).all()
    assert len({int(count) for count in (p > 0).sum(dim=-1)}) > 1, "rows of one length show nothing"


def test_the_mass_that_is_kept_is_the_mass_that_is_told() -> None:
    rows = logits()
    for codec in (TopK(6), TopK(40, top_p=0.6)):
        told = sum(each.mass for each in codec.encode(rows, SIZES, [0] * 3))
        assert told == pytest.approx(float(through(codec, rows).log_p.double().exp().sum()), rel=1e-3)


def test_what_is_promised_of_the_size_is_kept() -> None:
    for size, taken in ((151_936, 272), (128_256, 264), (50_000, 256)):
        rows, codec = logits(size, num_rows=4), TopK(64)
        assert codec.bytes_per_row(codec.layout(rows)) == taken
        assert [len(each.data) for each in codec.encode(rows, [4], [0])] == [4 * taken]


def test_samples_are_right_on_average_and_the_same_every_time() -> None:
    p = torch.tensor([0.5, 0.3, 0.1, 0.06, 0.04])
    rows, codec = p.log().repeat(4000, 1), Sampled(draws=12)
    found = through(codec, rows, [4000])
    assert found.is_sampled
    dense = torch.zeros(4000, 5).scatter_add(1, found.ids.long(), found.log_p.exp())
    torch.testing.assert_close(dense.sum(dim=-1), torch.ones(4000))
    deviation = (p * (1 - p) / (12 * 4000)).sqrt()
    assert ((dense.mean(dim=0) - p).abs() < 4 * deviation).all()
    assert torch.equal(through(codec, rows, [4000]).ids, found.ids)
