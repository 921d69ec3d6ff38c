"""What a run of W&B becomes in a comparison."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from potstill.sweeps.varying import identity
from potstill.tracking.remote import result_of


def run(name: str = "kd-0", status: str = "finished", state: str = "finished", **config: Any) -> Any:
    """As `wandb.Api().runs` yields it."""
    here = {"dir": f"runs/{name}", "name": name, "swept": {"loss": "kd"}, "choices": {"loss": "kd", "logger": "wandb"}}
    config = {"run": here, "seed": 0, "best": {"directory": f"runs/{name}/checkpoints"}, **config}
    config |= {"manifest": {"status": status, "validated_on": "a1"}, "_wandb": {"cli_version": "0"}}
    summary = {"val/loss": 1.0, "_runtime": 3, "evaluation/slices": {"_type": "table"}, "status": "finished"}
    url = f"https://wandb.test/team/project/runs/{name}"
    return SimpleNamespace(name=name, url=url, state=state, config=config, summary_metrics=summary)


def test_a_run_is_read_as_a_directory_would_be() -> None:
    found = result_of(run())
    assert (found.name, found.status, found.seed, found.data) == ("kd-0", "finished", 0, "a1")
    assert found.metrics["val/loss"] == 1.0
    assert found.choices == {"loss": "kd"}
    assert found.overrides == ["loss=kd"]
    assert identity(found) == identity(result_of(run("kd-1", seed=1)))


def test_keys_that_a_sweep_locked_are_the_same_keys() -> None:
    """They stand in the config under dotted names."""
    locked: dict[str, Any] = {"optim.lr": 0.1}
    nested, dotted = run(optim={"lr": 0.1}), run("kd-1", **locked)
    assert identity(result_of(nested)) == identity(result_of(dotted))


@pytest.mark.parametrize(
    ("status", "state", "expected"),
    [
        ("diverged", "failed", "diverged"),
        ("running", "running", "running"),
        ("running", "crashed", "killed"),
        ("running", "failed", "failed"),
    ],
)
def test_what_did_not_finish_says_where_to_look(status: str, state: str, expected: str) -> None:
    found = result_of(run(status=status, state=state))
    assert (found.status, found.reason) == (expected, "see https://wandb.test/team/project/runs/kd-0")
