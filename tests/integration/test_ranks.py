"""One process, two replicas, two shards: the same gradients, metrics and weights, and the same end when a loss breaks.

Ranks are launched once; under each strategy they train every case of `two_ranks` one after another.
"""

from __future__ import annotations

import csv
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from potstill.hardware.launch import launch
from tests.tiers import one_and_others

from .distil import relative_difference
from .two_ranks import (
    CASES,
    EMBEDDING,
    HALF,
    INCIDENTS,
    NUM_STEPS,
    REPLICATED_CASES,
    ROW_TERMS,
    SHARDED_CASES,
    TEXT,
    Case,
    Incident,
    batch,
    run_case,
    run_incident,
)

REPO = Path(__file__).parents[2]
STRATEGIES = ("ddp", "fsdp")
GRADIENT_TOLERANCE, WEIGHT_TOLERANCE = 1e-5, 1e-4
Facts = dict[str, Any]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Grad strides do not match bucket view"),
]


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks have written what they saw."""
    directory = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPO)
        command = [sys.executable, "-W", "ignore", "-m", "tests.integration.two_ranks"]
        launch(2, [*command, str(directory), *STRATEGIES])
    return directory


@pytest.fixture(scope="module", params=STRATEGIES)
def ranks(request: pytest.FixtureRequest, launched: Path) -> tuple[str, list[Facts], Path]:
    """The strategy, what each of its two ranks saw, and where."""
    directory = launched / request.param
    return request.param, [torch.load(directory / f"{rank}.pt", weights_only=True) for rank in (0, 1)], directory


@functools.cache
def alone(case: Case) -> Facts:
    return run_case(case)


def cases(strategy: str) -> dict[str, Case]:
    return {**CASES, **(SHARDED_CASES if strategy == "fsdp" else REPLICATED_CASES)}


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest |found - expected| / |expected| of any parameter.

    One whose true value is zero (the bias of a key moves no attention) is compared with a thousandth of all.
    """
    assert found.keys() == expected.keys()
    floor = 1e-3 * torch.cat([value.flatten() for value in expected.values()]).norm()
    assert floor > 0
    return max(
        float((found[name] - value).norm() / torch.maximum(value.norm(), floor)) for name, value in expected.items()
    )


def first_gradient(found: Facts, expected: Facts) -> float:
    return worst(found["gradients"][0], expected["gradients"][0])


def last_weights(found: Facts, expected: Facts) -> float:
    return relative_difference(found["weights"], expected["weights"])


def differences(strategy: str, seen: list[Facts], measure: Callable[[Facts, Facts], float]) -> dict[str, float]:
    return {
        name: max(measure(facts[name], alone(case.plain)) for facts in seen) for name, case in cases(strategy).items()
    }


def above(errors: dict[str, float], tolerance: float) -> dict[str, float]:
    return {name: error for name, error in errors.items() if not error <= tolerance}


def test_every_term_that_ranks_can_share_is_trained() -> None:
    assert len(ROW_TERMS) > 10
    for term in ROW_TERMS:
        assert any(case.num_steps == NUM_STEPS for case in CASES.values() if term in case.terms)


def test_the_first_gradient_is_that_of_one_process(ranks: tuple[str, list[Facts], Path]) -> None:
    strategy, seen, _ = ranks
    assert all(facts["mixed"]["world_size"] == 2 for facts in seen)
    assert above(differences(strategy, seen, first_gradient), GRADIENT_TOLERANCE) == {}


def test_the_weights_in_the_end_are_those_of_one_process(ranks: tuple[str, list[Facts], Path]) -> None:
    strategy, seen, _ = ranks
    assert above(differences(strategy, seen, last_weights), WEIGHT_TOLERANCE) == {}


def test_every_metric_of_every_step_is_that_of_one_process(ranks: tuple[str, list[Facts], Path]) -> None:
    strategy, seen, _ = ranks
    for name, case in cases(strategy).items():
        expected = alone(case.plain)["metrics"]
        assert len(expected) == case.num_steps + 1  # after the last step, validation
        assert {f"train/term/{term}" for term in case.terms} | {"train/grad_norm"} <= expected[0].keys()
        assert case.measures_terms == (f"train/grad_norm/{case.terms[0]}" in expected[0])
        assert {"val/loss", "val/ndcg_at_10" if case.task == EMBEDDING else "val/accuracy"} <= expected[-1].keys()
        for facts in seen:
            for step, metrics in enumerate(expected):
                assert facts[name]["metrics"][step] == pytest.approx(metrics, rel=1e-3, abs=1e-6), (name, step)


def test_a_bfloat16_student_trains_on_losses_in_float32(ranks: tuple[str, list[Facts], Path]) -> None:
    _, seen, _ = ranks
    expected = alone(HALF)["metrics"]
    for facts in seen:
        half = facts["bf16-true"]
        assert half["dtypes"] == ["torch.float32"]
        dtypes = {name: value.dtype for name, value in half["weights"].items()}
        assert {dtype for name, dtype in dtypes.items() if name.startswith("student.")} == {torch.bfloat16}
        assert {dtype for name, dtype in dtypes.items() if name.startswith("objective.")} == {torch.float32}
        losses = [metrics["train/loss"] for metrics in half["metrics"]]
        assert losses[0] == pytest.approx(expected[0]["train/loss"], rel=0.02)
        assert losses[9] < 0.8 * losses[0]  # of the same examples
    assert seen[0]["bf16-true"]["weights"].keys() == seen[1]["bf16-true"]["weights"].keys()
    assert last_weights(seen[0]["bf16-true"], seen[1]["bf16-true"]) == 0.0


def test_ranks_agree_on_what_they_ask_each_other(ranks: tuple[str, list[Facts], Path]) -> None:
    for facts in ranks[1]:
        assert facts["answers"] == {
            "world_size": 2,
            "sum": {"labelled": 3, "scored": 10},
            "max": 5,
            "added": {"a": 4.0, "b": 1.0},
            "first": "of rank 1",
            "none": None,
        }


@functools.cache
def without_fault(batches: tuple[int, ...], breaks: Any, directory: Path) -> Facts:
    return run_incident(Incident(batches=batches, breaks=breaks), directory)


@pytest.mark.parametrize("name", INCIDENTS)
def test_what_is_not_finite_on_one_rank_is_told_by_both_with_term_step_and_examples(
    ranks: tuple[str, list[Facts], Path], name: str
) -> None:
    strategy, seen, _ = ranks
    incident = INCIDENTS[name]
    message = seen[0][name]["message"]
    assert seen[1][name]["message"] == message
    if incident.goes_on:
        assert message is None
        return
    assert message.startswith("After 2 optimizer steps ")
    if incident.breaks == "loss":
        assert "loss.term.kd is not finite: rows 1, in the micro-batch of examples " in message
    else:
        assert "the gradient is not finite: student.bert" in message
    if incident.breaks == "loss" or strategy == "ddp":
        keys = batch(TEXT).keys
        assert "loss.term.kd" in message
        assert all(keys[row] in message for row in (1, 2, 13, 14))  # the spoilt micro-batch
        assert not any(keys[row] in message for row in (3, 5, 12, 15))  # another rank's, and another's of this rank


@pytest.mark.parametrize("name", INCIDENTS)
def test_weights_after_a_fault_are_those_of_the_good_steps_alone_and_are_kept(
    ranks: tuple[str, list[Facts], Path], name: str, tmp_path: Path
) -> None:
    _, seen, directory = ranks
    incident = INCIDENTS[name]
    good = tuple(number for step, number in enumerate(incident.batches) if step not in incident.spoilt)
    if not incident.goes_on:
        good = tuple(number for step, number in enumerate(incident.batches[:2]) if step not in incident.spoilt)
    expected = without_fault(good, incident.breaks, tmp_path)
    checkpoint = torch.load(directory / name / "last.ckpt", weights_only=True)
    num_spoilt = len(incident.spoilt)
    assert checkpoint["num_skipped"] == num_spoilt
    assert checkpoint["global_step"] == (len(incident.batches) if incident.goes_on else 2)
    for facts in seen:
        assert facts[name]["num_skipped"] == num_spoilt
        assert last_weights(facts[name], expected) <= WEIGHT_TOLERANCE
        assert last_weights({"weights": checkpoint["state_dict"]}, facts[name]) == 0.0
    if incident.goes_on:
        assert seen[0][name]["metrics"][-1]["train/skipped_steps"] == num_spoilt
        assert (
            relative_difference(expected["weights"], without_fault((0,), incident.breaks, tmp_path)["weights"]) > 1e-3
        )


# Overrides of a run that goes on are added to those it has: what another stretch set has to be taken back.
ALONE = ("hardware=cpu", "hardware.devices=1", "hardware.strategy=auto")
REPLICATED = ("hardware=cpu", "hardware.devices=2", "hardware.strategy=ddp")
SHARDED = ("hardware=cpu_fsdp2", "hardware.devices=2", "hardware.strategy=fsdp")
PER_STRETCH = 3  # steps
SETTINGS = (
    "student=vit_digits_tiny",
    "limit_batches=4",
    "optim.schedule=constant",
    "optim.max_epochs=null",
    "optim.warmup_fraction=0.0",
    "optim.optimizer.lr=0.01",
)


def trained(potstill: Callable[..., Any], stretches: list[tuple[str, ...]]) -> list[dict[str, float]]:
    """The metrics of a run of the command line that goes on, after every few steps, on other hardware."""
    run, changed = f"run{len(stretches)}", ("optim.max_steps", "hardware")
    for number, hardware in enumerate(stretches, 1):
        steps = f"optim.max_steps={PER_STRETCH * number * (3 // len(stretches))}"
        if number == 1:
            logged = ("logger=csv", "log_every=1", "validate_every=3")
            outcome = potstill("train", f"run.dir={run}", *SETTINGS, *logged, *hardware, steps)
        else:
            allowed = [word for key in changed for word in ("--allow-changed", key)]
            outcome = potstill("train", "--resume", run, *hardware, steps, *allowed)
        assert outcome.code == 0, outcome.err
        written = OmegaConf.load(f"{run}/config.yaml").hardware
        assert [f"hardware.devices={written.devices}", f"hardware.strategy={written.strategy}"] == list(hardware[1:])
    with open(f"{run}/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if value and "_per_s" not in name} for row in rows]


@pytest.mark.parametrize("several", one_and_others(SHARDED, REPLICATED), ids=["fsdp", "ddp"])
def test_a_run_goes_on_with_more_ranks_and_with_fewer(potstill: Callable[..., Any], several: tuple[str, ...]) -> None:
    expected = trained(potstill, [ALONE])
    found = trained(potstill, [ALONE, several, ALONE])
    losses = [row["train/loss"] for row in expected if "train/loss" in row]
    assert len(losses) == 3 * PER_STRETCH
    assert max(losses) > 1.02 * min(losses)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_torchrun_starts_the_ranks_of_one_run(tmp_path: Path) -> None:
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    settings = ["hardware=cpu_fsdp2", "debug=few_steps", "student=vit_digits_tiny", "run.name=x", "logger=csv"]
    command = [*launcher, "-m", "potstill", "train", *settings, "optim.max_steps=4", "validate_every=2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    [manifest] = tmp_path.rglob("manifest.json")
    run = manifest.parent
    assert run == tmp_path / "runs" / "debug" / "x"
    assert json.loads(manifest.read_text())["status"] == "finished"
    [metrics] = tmp_path.rglob("metrics.csv")
    with open(metrics) as file:
        steps = [row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]]
    assert len(steps) == 4
    assert {file.name for file in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (run / "student" / "model.safetensors").exists()
    assert done.stdout.count("Student: ") == 1
