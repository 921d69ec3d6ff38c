"""Two real processes, joined by gloo, against one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from potstill.distributed import max_over_ranks, sum_over_ranks, world_size
from tests.integration.distil import distillation, one_step, relative_difference
from tests.integration.two_ranks import TERMS, whole_batches

REPO = Path(__file__).parents[1]
TASKS = ("text_classification", "causal_lm")


def test_one_process_alone_answers_for_itself() -> None:
    device = torch.device("cpu")
    assert world_size() == 1
    assert sum_over_ranks({"labelled": 3, "scored": 0}, device) == {"labelled": 3, "scored": 0}
    assert max_over_ranks(7, device) == 7


@pytest.fixture(scope="module", params=TASKS)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    """The task, and what each of two ranks saw."""
    directory = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.integration.two_ranks", str(directory), request.param]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
def test_counts_are_summed_and_compared_over_ranks(ranks: tuple[str, list[dict[str, Any]]]) -> None:
    for facts in ranks[1]:
        assert facts["world_size"] == 2
        assert facts["sum"] == {"labelled": 3, "scored": 10}
        assert facts["max"] == 5


@pytest.mark.slow
def test_uneven_shares_of_two_ranks_give_the_gradient_and_metrics_of_one_process(
    ranks: tuple[str, list[dict[str, Any]]],
) -> None:
    task, seen = ranks
    for step, whole in enumerate(whole_batches(task)):
        expected, metrics = one_step(distillation(task, *TERMS), whole)
        for facts in seen:
            assert relative_difference(facts["gradients"][step], expected) <= 1e-5
            assert facts["metrics"][step] == pytest.approx(metrics, rel=1e-4, abs=1e-6)
