"""What a training step costs under each loss, in units of a step without a teacher.

    OMP_NUM_THREADS=1 python benchmarks/step_cost.py experiment=clinc150_all_labels \\
        --out benchmarks/results/step_cost.json

A step is forward, loss, backward and optimizer, on the same global batches for every loss. The losses take turns batch
by batch, in an order that rotates, so that what else the machine does meets all alike; a step's figure is its time over
that of `ce` on the same batch, and a loss's the median over all batches. Twice: the teacher running (`live`), and its
logits remembered from an earlier epoch (`remembered`), where hidden states, which are not, still need it to run.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source, make_module
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.data.batch import Batch
from potstill.module import DistillationModule
from potstill.tracking.manifest import git_state, write_json

LOSSES = ("ce", "kd", "dkd", "dist", "rkd", "kd_rkd", "tinybert", "kd_minilmv2")
REFERENCE = "ce"
WAYS = {"live": False, "remembered": True}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="+", help="of potstill train, the same for every loss")
    parser.add_argument("--losses", nargs="+", default=list(LOSSES))
    parser.add_argument("--batches", type=int, default=30)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    names = list(dict.fromkeys([REFERENCE, *options.losses]))
    measured = {way: measure(names, options.overrides, options.batches, remember=WAYS[way]) for way in WAYS}
    losses = {name: {way: statistics.median(ratios(measured[way], name)) for way in WAYS} for name in names}
    print("| loss | teacher live | logits remembered |\n|---|---:|---:|")
    for name, cost in losses.items():
        print(f"| `{name}` | {cost['live']:.2f} | {cost['remembered']:.2f} |")
    if options.out:
        machine = {"platform": platform.platform(), "cores": os.cpu_count(), "torch": torch.__version__}
        facts = {"code": git_state(Path(__file__).parent), "machine": machine, "overrides": options.overrides}
        write_json(options.out, {**facts, "losses": losses, "seconds": measured})


def measure(names: Sequence[str], overrides: Sequence[str], num_batches: int, *, remember: bool) -> dict[str, list]:
    """Seconds of every step, by loss, in the order of the batches."""
    modules: dict[str, DistillationModule] = {}
    batches: list[Batch] = []
    for name in names:
        module, loader = assemble([*overrides, f"loss={name}", f"teacher.remember={str(remember).lower()}"])
        modules[name] = module
        batches = batches or [batch for batch, _ in zip(loader, range(num_batches), strict=False)]
    steps = {name: step_of(module) for name, module in modules.items()}
    for batch in batches if remember else batches[:1]:  # so that every example is remembered, and nothing is first
        for step in steps.values():
            step(batch)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number, batch in enumerate(batches):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            began_at = time.perf_counter()
            steps[name](batch)
            seconds[name].append(time.perf_counter() - began_at)
        print(f"{number + 1}/{num_batches}", end="\r", file=sys.stderr)
    return seconds


def ratios(seconds: dict[str, list[float]], name: str) -> list[float]:
    """Each step's time over that of the reference on the same batch."""
    return [own / other for own, other in zip(seconds[name], seconds[REFERENCE], strict=True)]


def assemble(overrides: Sequence[str]) -> tuple[DistillationModule, Iterable[Batch]]:
    """What `potstill train` would train, and its global batches; labelled or not, that every loss sees the same."""
    config = typed(composed("train", [*overrides, "run.dir=unused"]), TrainConfig)
    torch.manual_seed(config.seed)
    objective = assemble_objective(config)
    source = assemble_source(config)
    module = make_module(config, source, assemble_models(config, source, objective), objective)
    return module, source.data.train_dataloader()


def step_of(module: DistillationModule) -> Callable[[Batch], Any]:
    """One optimizer step on a batch, in the way of the module's training step on one process."""
    optimizer = module.configure_optimizers()["optimizer"]
    assert isinstance(optimizer, Optimizer)

    def step(batch: Batch) -> None:
        loss, _ = module.objective(module.step_of(batch), module.task.count_rows(batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
