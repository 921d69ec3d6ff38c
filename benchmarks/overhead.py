"""What a training step costs beside its arithmetic: potstill's, with logging, less that of a plain PyTorch loop.

    OMP_NUM_THREADS=1 python -m benchmarks.overhead --suite cpu --out benchmarks/results/overhead.json

Both train the same small vision transformer on the same batches of digits, with cross-entropy and distillation from a
live teacher, clipping, AdamW and a schedule. The plain loop is the arithmetic of a step and nothing else: no metric, no
check. Potstill's is `potstill train` with its default callbacks and `logger=csv`. The models are so small that what is
measured is mostly not arithmetic; the difference does not depend on their size. Both run in one process and take turns
of `TURN_STEPS` steps, so that what else the machine does meets both alike; a round is about one epoch. After the first,
which is not counted, both must have the same weights, or no figure counts. What the trainer alone costs (`trainer_ms`)
is measured alike: the plain loop's own step given to a Lightning trainer without callbacks and loggers.
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
from torch import nn
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

TURN_STEPS, ROUND_STEPS = 5, 40
NUM_ROUNDS = {"cpu": 25, "gpu": 40}  # counted
TEMPERATURE = 2.0
TOLERANCE = 1e-4  # of a weight after the first round; summation order differs, which grows with every step
MODEL = {"model_type": "vit", "image_size": 8, "patch_size": 4, "num_channels": 1, "num_hidden_layers": 2}
TEACHER = {**MODEL, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


def measured(suite: str) -> Report:
    """The difference per step, in milliseconds, by wall and by CPU time."""
    if suite not in NUM_ROUNDS:
        return Report()
    if suite == "gpu" and not torch.cuda.is_available():
        return Report({f"step_ms_{clock}": measure.not_measured("no accelerator") for clock in ("wall", "cpu")})
    logging.getLogger("potstill").setLevel(logging.ERROR)
    device, num_rounds = "cuda" if suite == "gpu" else "cpu", 1 + NUM_ROUNDS[suite]
    report = Report()
    for name, train in {"step": train_potstill, "trainer": train_in_trainer}.items():
        counted = {way: each[1:] for way, each in taken_turns(train, device, num_rounds).items()}
        report.figures |= {f"{name}_ms_{clock}": _per_step(counted, clock) for clock in ("wall", "cpu")}
        report.rounds[f"{suite}/{name}"] = counted
    return report


def _per_step(rounds: Rounds, clock: str) -> Figure:
    return measure.scaled(measure.difference(rounds, "other", "raw", clock), 1000 / ROUND_STEPS)


class Turns(pl.Callback):
    """After every turn of the training that calls it, one of the plain loop; seconds of both, by round."""

    def __init__(self, plain: Plain) -> None:
        self.plain, self.steps = plain, plain.steps()
        self.rounds: Rounds = {"other": [], "raw": []}
        self.mark = (0.0, 0.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self.mark = self.now()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step % TURN_STEPS == 0:
            self.count("other", trainer.global_step)
            for _number in range(TURN_STEPS):
                next(self.steps)
            self.count("raw", trainer.global_step)
        if trainer.global_step == ROUND_STEPS:
            refuse_difference(pl_module.student, self.plain.student)
            self.mark = self.now()

    def count(self, name: str, step: int) -> None:
        """What went by since the last call."""
        before, self.mark = self.mark, self.now()
        if step % ROUND_STEPS == TURN_STEPS:
            self.rounds[name].append({"wall": 0.0, "cpu": 0.0})
        for clock, began_at, ended_at in zip(("wall", "cpu"), before, self.mark, strict=True):
            self.rounds[name][-1][clock] += ended_at - began_at

    def now(self) -> tuple[float, float]:
        if self.plain.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


def taken_turns(train: Callable[[TrainConfig, Turns], None], device: str, num_rounds: int) -> Rounds:
    """Of the plain loop and another."""
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = training(device, directory, num_rounds * ROUND_STEPS)
        turns = Turns(Plain(config, device))
        train(config, turns)
    return turns.rounds


def train_potstill(config: TrainConfig, turns: Turns) -> None:
    place = check_parts(config)
    module, data = parts_of(config)
    trainer = make_trainer(config, module, make_loggers(config), place)
    trainer.callbacks.append(turns)  # type: ignore[attr-defined]
    fit(trainer, module, data, None)


def train_in_trainer(config: TrainConfig, turns: Turns) -> None:
    plain = Plain(config, turns.plain.device)
    trainer = pl.Trainer(
        accelerator=plain.device,
        devices=1,
        max_steps=config.optim.max_steps or -1,
        callbacks=[turns],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(InTrainer(plain), plain.data.train_dataloader())


def refuse_difference(student: nn.Module, plain: nn.Module) -> None:
    """Raises RuntimeError where the two loops do not train the same."""
    pairs = zip(student.parameters(), plain.parameters(), strict=True)
    furthest = max(float((own - other).detach().abs().max()) for own, other in pairs)
    if furthest > TOLERANCE:
        raise RuntimeError(f"The two loops have other weights, up to {furthest:.1e} apart: no time counts")


def training(device: str, directory: str, num_steps: int) -> TrainConfig:
    overrides = [
        *("data=digits", "data.batch_size=32", "student=vit_digits_tiny", "teacher=pretrained", "teacher.path=null"),
        *(f"++student.config.{key}={value}" for key, value in {**TEACHER, "hidden_dropout_prob": 0.0}.items()),
        *(f"++teacher.config.{key}={value}" for key, value in TEACHER.items()),
        *("loss=kd", f"loss.term.kd.temperature={TEMPERATURE}", "optim.max_epochs=null"),
        *(f"optim.max_steps={num_steps}", "validate_every=1000000", "logger=csv", "log_every=10"),
        *(f"hardware={'gpu' if device == 'cuda' else 'cpu'}", "hardware.precision=32", "hardware.num_workers=0"),
        *(f"run.dir={directory}", "run.name=overhead", "run.experiment=overhead"),
    ]
    return typed(composed("train", overrides), TrainConfig)


def parts_of(config: TrainConfig) -> tuple[Any, Any]:
    pl.seed_everything(0, workers=True, verbose=False)
    objective = assemble_objective(config)
    source = assemble_source(config)
    return make_module(config, source, assemble_models(config, source, objective), objective), source.data


class Plain:
    """The loop that anyone would write."""

    def __init__(self, config: TrainConfig, device: str) -> None:
        self.device, self.clip_norm = device, config.optim.clip_norm or torch.inf
        self.module, self.data = parts_of(config)
        teacher: Any = self.module.teacher
        self.student, self.teacher = self.module.student.train().to(device), teacher.model.eval().to(device)
        self.weights = {name: term.weight for name, term in self.module.objective.terms.items()}

    def steps(self) -> Iterator[None]:
        """One step at each `next`."""
        prepared: Any = self.module.configure_optimizers()
        optimizer, schedule = prepared["optimizer"], prepared["lr_scheduler"]["scheduler"]
        for batch in epochs(self.data.train_dataloader()):
            self.loss(batch).backward()
            clip_grad_norm_(self.student.parameters(), self.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            yield

    def loss(self, batch: Batch) -> torch.Tensor:
        images, labels = batch.inputs["pixel_values"].to(self.device), batch.labels.to(self.device)
        logits = self.student(pixel_values=images).logits
        with torch.no_grad():
            targets = self.teacher(pixel_values=images).logits
        tempered = [(each / TEMPERATURE).log_softmax(dim=-1) for each in (logits, targets)]
        kd = TEMPERATURE**2 * kl_div(*tempered, reduction="batchmean", log_target=True)
        return self.weights["ce"] * cross_entropy(logits, labels) + self.weights["kd"] * kd


class InTrainer(pl.LightningModule):
    """The plain loop's step, as a trainer takes it."""

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.student = plain.student
        self.plain = plain

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        self.manual_backward(self.plain.loss(batch))
        clip_grad_norm_(self.student.parameters(), self.plain.clip_norm)
        optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[union-attr]

    def configure_optimizers(self) -> Any:
        return self.plain.module.configure_optimizers()


def epochs(loader: Any) -> Iterator[Batch]:
    for epoch in range(10**6):
        loader.sampler.set_epoch(epoch)
        yield from loader


if __name__ == "__main__":
    measure.command(Path(__file__).stem, measured, __doc__)
