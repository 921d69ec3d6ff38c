"""The pure parts of the measurements of memory and precision: tables, and what they refuse to put into one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from benchmarks import precision_accuracy, sharded_memory
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig

MB = 10**6


def variant(name: str, *ranks: tuple[int, int, int, int], losses: tuple[float, ...] = (2.0, 1.9, 1.8, 1.7)) -> Any:
    """ranks: imports, loading peak, start and training peak of each, in MB."""
    keys = ("imports", "loading_peak", "start", "training_peak")
    parts = dict.fromkeys(("parameters", "gradients", "optimizer", "teacher", "activations"), 100 * MB)
    memories = [{key: value * MB for key, value in zip(keys, rank, strict=True)} for rank in ranks]
    return {"name": name, "estimate": parts, "losses": list(losses), "ranks": memories}


def test_the_table_shows_the_largest_rank_beside_its_imports_and_which_peak_leads() -> None:
    one = variant("one", (500, 1100, 900, 1500))
    two = variant("two", (500, 1300, 700, 1000), (400, 1000, 700, 1000))
    _, _, first, second = sharded_memory.markdown([one, two])
    assert first == "| one | 600 | 400 | **1,000** | 1.00 | 500 | 2.00 | 1.700000 |"
    assert second == "| two | **800** | 300 | 600 | 0.60 | 500 | 1.20 | 1.700000 |"


@pytest.mark.parametrize(
    ("losses", "agree"),
    [
        ((2.0, 1.9, 1.8, 1.7), True),
        ((2.0, 1.9, 1.8, 1.70001), True),
        ((2.0, 1.9, 1.8, 1.701), False),
        ((2.0, 1.9, 1.8), False),
        ((2.0, 1.9, 1.8, float("nan")), False),
    ],
)
def test_figures_count_only_where_the_losses_agree(losses: tuple[float, ...], agree: bool) -> None:
    variants = [variant("one", (1, 1, 1, 1)), variant("two", (1, 1, 1, 1), losses=losses)]
    assert sharded_memory.losses_agree(variants) == agree


@pytest.mark.parametrize("name", sharded_memory.VARIANTS)
def test_every_variant_is_a_config_for_as_many_ranks(name: str, tmp_path: Path) -> None:
    num_ranks, overrides = sharded_memory.VARIANTS[name]
    fixed = sharded_memory.training(sharded_memory.Sizes(), tmp_path)
    config = typed(composed("train", [*fixed, *overrides]), TrainConfig)
    assert config.hardware.devices == num_ranks
    assert config.teacher.config["hidden_size"] > config.student.config["hidden_size"]


def test_texts_fill_every_step_at_full_length(tmp_path: Path) -> None:
    sizes = sharded_memory.Sizes()
    sharded_memory.write_texts(tmp_path, sizes)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) == sharded_memory.NUM_STEPS * sizes.examples
    assert {len(row["text"].split()) for row in rows} == {sizes.length}


def write_run(directory: Path, precision: str, seed: int, accuracy: float, **config: Any) -> Path:
    directory.mkdir()
    metrics = {"val/accuracy": accuracy, "val/loss": 1.0 - accuracy}
    manifest = {"status": "finished", "metrics": metrics, "git": {"potstill": {"commit": "abc", "dirty": False}}}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    whole = {"seed": seed, "hardware": {"precision": precision}, "optim": {"max_steps": 1}, **config}
    OmegaConf.save(OmegaConf.create(whole), directory / "config.yaml")
    return directory


def write_runs(directory: Path) -> list[str]:
    accuracies = {("32", 0): 0.80, ("32", 1): 0.82, ("bf16-mixed", 0): 0.81, ("bf16-mixed", 1): 0.81}
    return [
        str(write_run(directory / f"{precision}_{seed}", precision, seed, accuracy))
        for (precision, seed), accuracy in accuracies.items()
    ]


def test_precisions_are_paired_by_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    precision_accuracy.main(write_runs(tmp_path)[::-1])
    _, _, whole, half, *_ = capsys.readouterr().out.splitlines()
    assert whole == "| val/accuracy, 32 | 81.00 +- 1.41 | 80.00, 82.00 |  |"
    # differences of +1 and -1: their mean is 0, and t(0.975, 1) * sd / sqrt(2) = 12.71
    assert half == "| val/accuracy, bf16-mixed | 81.00 +- 0.00 | 81.00, 81.00 | +0.00 [-12.71, +12.71] |"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"precision": "32", "seed": 2}, "one run of every seed"),
        ({"precision": "32", "seed": 1}, "one run of every seed"),
    ],
)
def test_runs_without_a_pair_are_refused(other: dict[str, Any], message: str, tmp_path: Path) -> None:
    extra = write_run(tmp_path / "extra", **other, accuracy=0.5)
    with pytest.raises(SystemExit, match=message):
        precision_accuracy.main([*write_runs(tmp_path), str(extra)])


def test_runs_that_differ_in_more_than_precision_are_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", "32", 0, 0.5)
    second = write_run(tmp_path / "second", "bf16-mixed", 0, 0.5, optim={"max_steps": 2})
    with pytest.raises(SystemExit, match="more than seed and precision: optim"):
        precision_accuracy.main([str(first), str(second)])
