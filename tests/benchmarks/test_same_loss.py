"""What is measured against a peer, or a peer's formula, computes the same as the peer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import e2e_lm, sparse_head
from benchmarks.head_variants import Shape
from benchmarks.run import BENCHMARKS


@pytest.mark.parametrize("dtype", sparse_head.OURS)
def test_the_sparse_head_and_distillkits_formula_agree(dtype: torch.dtype) -> None:
    given = sparse_head.Given.of(Shape(40, 512, 16, 0), dtype)
    assert sparse_head.disagreement(given, sparse_head.OURS[dtype], dtype) is None


def test_another_loss_than_the_peers_gives_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Shape(40, 512, 16, 0)
    other = sparse_head.VARIANTS["distillkit"]
    monkeypatch.setitem(sparse_head.VARIANTS, "distillkit", lambda given: 1.01 * other(given))
    found = sparse_head.measure_shape(shape, torch.float32, "smoke")
    assert not found.rounds
    assert all(figure.value is None and "differs by" in str(figure.reason) for figure in found.figures.values())


@pytest.mark.parametrize("dtype", e2e_lm.AGREE)
def test_a_whole_step_and_a_plain_loops_agree(dtype: torch.dtype) -> None:
    given = e2e_lm.Given.of(e2e_lm.SIZES["smoke"], dtype)
    assert e2e_lm.disagreement(given, "plain") is None


def test_every_benchmark_that_is_run_is_there() -> None:
    folder = Path(sparse_head.__file__).parent
    assert [name for name in BENCHMARKS if not (folder / f"{name}.py").exists()] == []
