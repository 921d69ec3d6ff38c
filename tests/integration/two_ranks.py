"""Run as the ranks of `launch`: trains every case one after another; what a rank saw goes to `<strategy>/<rank>.pt`.

`python -m tests.integration.two_ranks DIRECTORY STRATEGY...`; without ranks, `run_case` gives what one process sees.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from potstill.commands.assemble import Models, _sharding, locate
from potstill.commands.fit import make_trainer
from potstill.config.schema import HardwareConfig, OptimConfig, TrainConfig
from potstill.data.batch import Batch
from potstill.distributed import add_over_ranks, first_of_ranks, max_over_ranks, rank, sum_over_ranks, world_size
from potstill.errors import DivergedError
from potstill.hardware.launch import as_rank
from potstill.hardware.place import Place
from potstill.hardware.sharding import checkpoint_activations, whole
from potstill.losses.terms import Term
from potstill.models.task import TASKS
from potstill.module import DistillationModule
from potstill.objective import Objective
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, Signal
from potstill.tracking.callbacks import TermGradients
from tests.losses.registry import COUPLED_TERMS, EMBEDDING_TERMS, MAP_TERMS, TERM_NAMES, make_term, options_of
from tests.tiers import IS_THOROUGH

from .distil import TAPS, batch, distillation, loader, model

TEXT, IMAGE, EMBEDDING = "text_classification", "image_classification", "embedding"
NUM_STEPS = 12
# Where the true gradient is zero, as that of a key's bias is, a smaller eps makes whole steps of rounding errors.
OPTIMIZER = functools.partial(torch.optim.AdamW, lr=3e-3, eps=1e-5)
MAP_TAP = "vit.embeddings.patch_embeddings.projection"  # a feature map, channels first
# Examples of each of three global batches, by rank. The second leaves nothing to rank 1, the third little to rank 0.
SHARES = (
    ([0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [1, 2, 13, 14, 15]),
    ([0, 1, 2, 3], []),
    ([9], [0, 2, 4, 6, 8, 10, 12, 14]),
)


@dataclass(frozen=True)
class Case:
    """One training. hardware: options under which it must be what it is without. measures_terms: their gradients."""

    task: str
    terms: tuple[str, ...]
    num_steps: int = len(SHARES)
    clip_norm: float | None = None
    hardware: tuple[str, ...] = ()
    tap: str | None = None
    measures_terms: bool = False

    @property
    def plain(self) -> Case:
        return replace(self, hardware=())


def _together(names: list[str], size: int = 6) -> dict[str, Case]:
    """Trainings of several terms at once, long ones."""
    parts = [tuple(names[start : start + size]) for start in range(0, len(names), size)]
    return {", ".join(part): Case(_task(part[0]), part, NUM_STEPS) for part in parts}


def _task(term: str) -> str:
    return EMBEDDING if term in EMBEDDING_TERMS else IMAGE if term in MAP_TERMS else TEXT


ROW_TERMS = [name for name in TERM_NAMES if name not in COUPLED_TERMS]  # those that ranks can share
MIXED = ("ce", "kd", "hidden_mse")
CHECKPOINTED, SHARDED_TEACHER = ("activation_checkpointing",), ("shard_teacher",)
ALONE = ROW_TERMS if IS_THOROUGH else ()  # each is in a group as well
CASES = {
    **{name: Case(_task(name), (name,)) for name in ALONE},
    **_together([name for name in ROW_TERMS if _task(name) == TEXT]),
    **_together([name for name in ROW_TERMS if _task(name) == IMAGE]),
    **_together([name for name in ROW_TERMS if _task(name) == EMBEDDING]),
    "mixed": Case(TEXT, MIXED, NUM_STEPS),
    "images": Case(IMAGE, MIXED),
    "inside a block": Case(TEXT, ("hidden_mse",), NUM_STEPS, tap="bert.encoder.layer.1.attention.output.dense"),
    "language model": Case("causal_lm", MIXED, NUM_STEPS),
    "clipped": Case(TEXT, MIXED, NUM_STEPS, clip_norm=0.05),
    "checkpointed": Case(TEXT, (*MIXED, "minilm_v2"), hardware=CHECKPOINTED),
    "checkpointed language model": Case("causal_lm", MIXED, hardware=CHECKPOINTED),
}
SHARDED_CASES = {
    "sharded teacher": Case(TEXT, MIXED, hardware=SHARDED_TEACHER),
    "sharded teacher of a language model": Case("causal_lm", MIXED, hardware=SHARDED_TEACHER),
}
REPLICATED_CASES = {
    "measured": Case(TEXT, ("ce", "kd", "hidden_mse", "ctkd"), measures_terms=True),
    "measured and checkpointed": Case(TEXT, MIXED, hardware=CHECKPOINTED, measures_terms=True),
}
HALF = Case(TEXT, MIXED, NUM_STEPS, clip_norm=1.0)  # in bf16-true


class Witness(pl.Callback):
    """Gradients of the first steps before clipping, metrics of all steps, dtypes of the losses; whole, on each rank."""

    def __init__(self, num_gradients: int = 2) -> None:
        self.num_gradients = num_gradients
        self.gradients: list[dict[str, Tensor]] = []
        self.metrics: list[dict[str, float]] = []
        self.dtypes: set[str] = set()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        objective: Any = pl_module.objective

        def note(_module: Any, _args: Any, output: tuple[Tensor, dict[str, Tensor]]) -> None:
            self.dtypes |= {str(value.dtype) for value in (output[0], *output[1].values())}

        objective.register_forward_hook(note)

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:  # noqa: ARG002
        if len(self.gradients) < self.num_gradients:
            named = pl_module.named_parameters()
            gradients = {name: torch.zeros_like(each) if each.grad is None else each.grad for name, each in named}
            self.gradients.append({name: whole(gradient).clone() for name, gradient in gradients.items()})

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._note(trainer)

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._note(trainer)

    def _note(self, trainer: pl.Trainer) -> None:
        self.metrics.append({name: float(value) for name, value in trainer.callback_metrics.items()})


class Trouble(Term):
    """A term whose value is fine, and whose gradient is NaN for rows that the teacher marks."""

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        marked_N = teacher_logits[:, 0] > Spoilt.MARK / 2
        values_N = student_logits.square().mean(dim=-1)
        if values_N.requires_grad:
            values_N.register_hook(lambda gradient: gradient.masked_fill(marked_N, math.nan))
        return values_N


class Spoilt(pl.Callback):
    """A teacher that, at some steps and on one rank, says of the second row of each micro-batch what breaks it."""

    MARK = 1e9

    def __init__(self, source: LiveTeacher, steps: Iterable[int], value: float, on_rank: int | None) -> None:
        self.source, self.steps, self.value, self.on_rank = source, set(steps), value, on_rank
        self.model, self.spoils = source.model, False

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        self.spoils = batch_idx in self.steps and self.on_rank in (None, trainer.global_rank)

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        signal = self.source.signal(batch, needs)
        if self.spoils and len(batch) > 1 and signal.logits is not None:
            signal.logits[1] = self.value
        return signal

    def to(self, device: torch.device) -> Spoilt:
        self.source.to(device)
        return self


class Shared(pl.LightningDataModule):
    """Each rank's share of the global batches, `num_steps` of them."""

    def __init__(self, task: str, numbers: Iterable[int]) -> None:
        super().__init__()
        self.task, self.numbers = task, list(numbers)

    def train_dataloader(self) -> Any:
        return loader([self._share(SHARES[number % len(SHARES)]) for number in self.numbers])

    def val_dataloader(self) -> Any:
        return loader([self._share(shares) for shares in SHARES])

    def _share(self, shares: tuple[list[int], ...]) -> Batch:
        assert self.trainer is not None
        alone = self.trainer.world_size == 1
        return batch(self.task).take([*shares[0], *shares[1]] if alone else shares[self.trainer.global_rank])


def trainer_of(
    module: DistillationModule, hardware: HardwareConfig, num_steps: int, callbacks: list[pl.Callback], **nodes: Any
) -> pl.Trainer:
    """As the command builds it. nodes: of `config.callbacks`."""
    config = TrainConfig(hardware=hardware, optim=OptimConfig(max_steps=num_steps), log_every=1, callbacks=nodes)
    place = Place(hardware.devices, 1, rank=0, is_rank=True)
    trainer = make_trainer(config, module, [], place)
    trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
    return trainer


def module_of(case: Case, hardware: HardwareConfig, *, kind: Literal["32", "bf16-true"] = "32") -> DistillationModule:
    student, teacher = model(case.task, seed=1, hidden_size=8), model(case.task)
    if kind == "bf16-true":
        student.bfloat16()
    if hardware.activation_checkpointing:
        checkpoint_activations(student)
    module = distillation(
        case.task,
        "embedding_mse" if case.task == EMBEDDING else "ce",  # until the case's own
        student=student,
        teacher=teacher,
        make_optimizer=OPTIMIZER,
        weight_decay=0.1,
        clip_norm=case.clip_norm,
        max_tokens=48,
    )
    tap = case.tap or (MAP_TAP if MAP_TERMS & set(case.terms) else TAPS[case.task])
    module.objective = Objective({name: make_term(name, **options_of(name, tap)) for name in case.terms})
    locate(module.objective, student, teacher)
    torch.manual_seed(0)  # projectors
    module.prepare(batch(case.task))
    if hardware.strategy == "fsdp":
        module.shard = _sharding(hardware, Models(student, module.teacher), module.objective)
    return module


def run_case(
    case: Case, strategy: str = "auto", num_ranks: int = 1, *, kind: Literal["32", "bf16-true"] = "32"
) -> dict[str, Any]:
    """What a witness saw of it, and the weights at the end, whole."""
    options: dict[str, Any] = dict.fromkeys(case.hardware, True)
    hardware = HardwareConfig(accelerator="cpu", devices=num_ranks, strategy=strategy, **options)
    module, witness = module_of(case, hardware, kind=kind), Witness()
    callbacks = [witness, *([TermGradients(1)] if case.measures_terms else [])]
    trainer_of(module, hardware, case.num_steps, callbacks).fit(module, Shared(case.task, range(case.num_steps)))
    return {
        "world_size": world_size(),
        "gradients": witness.gradients,
        "metrics": witness.metrics,
        "dtypes": sorted(witness.dtypes),
        "weights": whole(dict(module.state_dict())),
        "unused": module.unused_parameters,
    }


@dataclass(frozen=True)
class Incident:
    """A training over `batches` (numbers of `SHARES`), of which those at `spoilt` are broken on the last rank.

    breaks: its `loss`, or its `gradient` under a finite loss.
    """

    batches: tuple[int, ...] = (0, 0, 0, 0)
    spoilt: tuple[int, ...] = ()
    breaks: Literal["loss", "gradient"] = "loss"
    max_skipped: int | None = None

    @property
    def goes_on(self) -> bool:
        return len(self.spoilt) <= (self.max_skipped or 0)


INCIDENTS = {
    "loss stops": Incident(spoilt=(2,)),
    "gradient stops": Incident(spoilt=(2,), breaks="gradient"),
    "loss is skipped": Incident(batches=(0, 2, 0, 2), spoilt=(2,), max_skipped=2),
    "gradient is skipped": Incident(batches=(0, 2, 0, 2), spoilt=(2,), breaks="gradient", max_skipped=2),
    "one too many": Incident(spoilt=(1, 2), max_skipped=1),
}


def run_incident(incident: Incident, directory: Path, strategy: str = "auto", num_ranks: int = 1) -> dict[str, Any]:
    hardware = HardwareConfig(accelerator="cpu", devices=num_ranks, strategy=strategy)
    student, teacher = model(TEXT, seed=1, hidden_size=8), LiveTeacher(model(TEXT), TASKS[TEXT], None)
    is_loss = incident.breaks == "loss"
    spoilt = Spoilt(teacher, incident.spoilt, math.nan if is_loss else Spoilt.MARK, on_rank=num_ranks - 1)
    terms = {
        "ce": make_term("ce"),
        "hidden_mse": make_term("hidden_mse", **options_of("hidden_mse", TAPS[TEXT])),
    }  # its projector is in the way
    terms["kd"] = make_term("kd") if is_loss else Trouble()
    module = distillation(
        TEXT,
        "ce",
        student=student,
        teacher=spoilt,
        make_optimizer=OPTIMIZER,
        max_examples=4,
        on_nonfinite="stop" if incident.max_skipped is None else "skip",
        max_skipped=incident.max_skipped or 0,
    )
    module.objective = Objective(terms)
    torch.manual_seed(0)
    module.prepare(batch(TEXT))
    if strategy == "fsdp":
        module.shard = _sharding(hardware, Models(student, spoilt), module.objective)
    last = {"_target_": "potstill.tracking.checkpoints.LastCheckpoint", "directory": str(directory)}
    witness, message = Witness(), None
    trainer = trainer_of(module, hardware, len(incident.batches), [spoilt, witness], last=last)
    try:
        trainer.fit(module, Shared(TEXT, incident.batches))
    except DivergedError as error:
        message = str(error)
    return {
        "message": message,
        "step": trainer.global_step,
        "num_skipped": module.num_skipped,
        "metrics": witness.metrics,
        "weights": whole(dict(module.state_dict())),
    }


def answers() -> dict[str, Any]:
    """To the questions that ranks ask each other."""
    number = rank()
    added = add_over_ranks({"a": torch.tensor(1.5 + number), "b": torch.tensor(float(number))})
    return {
        "world_size": world_size(),
        "sum": sum_over_ranks({"labelled": 1 + number, "scored": 10 * number}),
        "max": max_over_ranks(5 - 3 * number),
        "added": {name: float(value) for name, value in added.items()},
        "first": first_of_ranks("of rank 1" if number == 1 else None),
        "none": first_of_ranks(None),
    }


def main(directory: Path, strategy: str) -> None:
    directory.mkdir(exist_ok=True)
    facts: dict[str, Any] = {}
    cases = {**CASES, **(SHARDED_CASES if strategy == "fsdp" else REPLICATED_CASES)}
    for name, case in cases.items():
        facts[name] = run_case(case, strategy, 2)
    facts["bf16-true"] = run_case(HALF, strategy, 2, kind="bf16-true")
    for name, incident in INCIDENTS.items():
        facts[name] = run_incident(incident, directory / name, strategy, 2)
    facts["answers"] = answers()
    torch.save(facts, directory / f"{rank()}.pt")


if __name__ == "__main__":
    with as_rank():
        for name in sys.argv[2:]:
            main(Path(sys.argv[1], name), name)
