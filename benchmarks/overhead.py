"""What a training step costs beside its arithmetic: potstill's, with logging, less that of a plain PyTorch loop.

    OMP_NUM_THREADS=1 python -m benchmarks.overhead --suite cpu --out benchmarks/results/overhead.json

Both train the same small vision transformer on the same batches of digits, with cross-entropy and distillation from a
live teacher, clipping, AdamW and a schedule. The plain loop is the arithmetic of a step and nothing else: no metric, no
check. Potstill's is `potstill train` with its default callbacks and `logger=csv`. The models are so small that what is
measured is mostly not arithmetic; the difference does not depend on their size. The two take turns, `NUM_STEPS` steps a
round after `WARM_STEPS`, and both must end with the same weights, or no figure counts.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy, kl_div
from torch.nn.utils import clip_grad_norm_

from benchmarks import measure
from benchmarks.measure import Figure, Report, Rounds
from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source, make_module
from potstill.commands.check import check_parts
from potstill.commands.fit import fit, make_trainer
from potstill.commands.recording import make_loggers
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.data.batch import Batch

WARM_STEPS, NUM_STEPS = 20, 200
NUM_ROUNDS = {"smoke": 2, "cpu": 15, "gpu": 15}
TEMPERATURE = 2.0
TOLERANCE = 1e-4  # of a weight after all steps; summation order differs
MODEL = {"model_type": "vit", "image_size": 8, "patch_size": 4, "num_channels": 1, "num_hidden_layers": 2}
TEACHER = {**MODEL, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}

Clock = Callable[[], None]


def measured(suite: str) -> Report:
    """The difference per step, in milliseconds, by wall and by CPU time."""
    if suite == "gpu" and not torch.cuda.is_available():
        return Report({"step_ms_wall": measure.not_measured("no accelerator"), **_none("step_ms_cpu")})
    logging.getLogger("potstill").setLevel(logging.ERROR)
    device = "cuda" if suite == "gpu" else "cpu"
    rounds: Rounds = {"potstill": [], "raw": []}
    for number in range(NUM_ROUNDS[suite]):
        ways = (("potstill", potstill), ("raw", raw))
        weights = {}
        for name, run in ways if number % 2 == 0 else ways[::-1]:
            seconds, weights[name] = run(device)
            rounds[name].append(seconds)
        refuse_difference(weights["potstill"], weights["raw"])
    figures = {f"step_ms_{clock}": _per_step(rounds, clock) for clock in ("wall", "cpu")}
    return Report(figures, {suite: rounds})


def _none(name: str) -> dict[str, Figure]:
    return {name: measure.not_measured("no accelerator")}


def _per_step(rounds: Rounds, clock: str) -> Figure:
    return measure.scaled(measure.difference(rounds, "potstill", "raw", clock), 1000 / NUM_STEPS)


def refuse_difference(first: list[torch.Tensor], second: list[torch.Tensor]) -> None:
    """Raises RuntimeError where the two did not train the same."""
    furthest = max(float((one - other).abs().max()) for one, other in zip(first, second, strict=True))
    if furthest > TOLERANCE:
        raise RuntimeError(f"The two loops end with other weights, up to {furthest:.1e} apart: no time counts")


class Watch(pl.Callback):
    """Seconds from the end of one step to that of another, by both clocks."""

    def __init__(self, device: str) -> None:
        self.device, self.marks = device, []

    def mark(self, step: int) -> None:
        if step in (WARM_STEPS, WARM_STEPS + NUM_STEPS):
            if self.device == "cuda":
                torch.cuda.synchronize()
            self.marks.append((time.perf_counter(), time.process_time()))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.mark(trainer.global_step)

    @property
    def seconds(self) -> dict[str, float]:
        (wall, cpu), (wall_end, cpu_end) = self.marks
        return {"wall": wall_end - wall, "cpu": cpu_end - cpu}


def training(device: str, directory: str) -> TrainConfig:
    overrides = [
        *("data=digits", "data.batch_size=32", "student=vit_digits_tiny", "teacher=pretrained", "teacher.path=null"),
        *(f"++student.config.{key}={value}" for key, value in {**TEACHER, "hidden_dropout_prob": 0.0}.items()),
        *(f"++teacher.config.{key}={value}" for key, value in TEACHER.items()),
        *("loss=kd", f"loss.term.kd.temperature={TEMPERATURE}", "optim.max_epochs=null"),
        *(f"optim.max_steps={WARM_STEPS + NUM_STEPS}", "validate_every=1000000", "logger=csv", "log_every=10"),
        *(f"hardware={'gpu' if device == 'cuda' else 'cpu'}", "hardware.precision=32", "hardware.num_workers=0"),
        *(f"run.dir={directory}", "run.name=overhead", "run.experiment=overhead"),
    ]
    return typed(composed("train", overrides), TrainConfig)


def parts_of(config: TrainConfig) -> tuple[Any, Any]:
    pl.seed_everything(0, workers=True, verbose=False)
    objective = assemble_objective(config)
    source = assemble_source(config)
    return make_module(config, source, assemble_models(config, source, objective), objective), source.data


def potstill(device: str) -> tuple[dict[str, float], list[torch.Tensor]]:
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config, watch = training(device, directory), Watch(device)
        place = check_parts(config)
        module, data = parts_of(config)
        trainer = make_trainer(config, module, make_loggers(config), place)
        trainer.callbacks.append(watch)  # type: ignore[attr-defined]
        fit(trainer, module, data, None)
    return watch.seconds, [parameter.detach().cpu() for parameter in module.student.parameters()]


def raw(device: str) -> tuple[dict[str, float], list[torch.Tensor]]:
    config, watch = training(device, "unused"), Watch(device)
    module, data = parts_of(config)
    student, teacher = module.student.train().to(device), module.teacher.model.eval().to(device)
    prepared = module.configure_optimizers()
    optimizer, schedule = prepared["optimizer"], prepared["lr_scheduler"]["scheduler"]
    weights = {name: term.weight for name, term in module.objective.terms.items()}
    for step, batch in enumerate(epochs(data.train_dataloader()), 1):
        images, labels = batch.inputs["pixel_values"].to(device), batch.labels.to(device)
        logits = student(pixel_values=images).logits
        with torch.no_grad():
            targets = teacher(pixel_values=images).logits
        tempered = [(each / TEMPERATURE).log_softmax(dim=-1) for each in (logits, targets)]
        kd = TEMPERATURE**2 * kl_div(*tempered, reduction="batchmean", log_target=True)
        (weights["ce"] * cross_entropy(logits, labels) + weights["kd"] * kd).backward()
        clip_grad_norm_(student.parameters(), config.optim.clip_norm or torch.inf)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        watch.mark(step)
        if step == WARM_STEPS + NUM_STEPS:
            break
    return watch.seconds, [parameter.detach().cpu() for parameter in student.parameters()]


def epochs(loader: Any) -> Iterator[Batch]:
    for epoch in range(10**6):
        loader.sampler.set_epoch(epoch)
        yield from loader


if __name__ == "__main__":
    measure.command(Path(__file__).stem, measured, __doc__)
