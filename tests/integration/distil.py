"""Tiny distillations on the trainer's own path: one step, and the gradients it took."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from potstill.commands.assemble import locate
from potstill.data.batch import IGNORE, Batch
from potstill.models.task import TASKS
from potstill.module import DistillationModule
from potstill.objective import Objective
from potstill.optimisation import schedule_of
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import SignalSource
from tests.losses.registry import make_term, options_of
from tests.models.tiny import causal_batch, embedding_batch, image_batch, text_batch, tiny_model

NUM_EXAMPLES = 16
NUM_LABELS = 5  # of two, the order and the correlation are always the same or the opposite
MODELS = {"text_classification": "bert", "image_classification": "vit", "causal_lm": "gpt2", "embedding": "bert"}
LOGIT_TASKS = [task for task in MODELS if TASKS[task].output.logits]
TAPS = {
    "text_classification": "bert.encoder.layer.1",
    "image_classification": "vit.layers.1",
    "causal_lm": "transformer.h.1",
    "embedding": "encoder.layer.1",
}
# What BERT's layers give is normalised: every token is as active as the next, and a map of activations says nothing.
NOT_NORMALISED = {
    ("text_classification", "attention_transfer"): "bert.encoder.layer.1.output.dense",
    ("embedding", "attention_transfer"): "encoder.layer.1.output.dense",
}
WITHOUT_DROPOUT = {
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "vit": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}


def model(task: str, *, seed: int = 0, **config: Any) -> PreTrainedModel:
    """A tiny model of the task with opinions (its logits are far from equal), without dropout, in train mode."""
    config = {**WITHOUT_DROPOUT[MODELS[task]], "initializer_range": 0.3, "num_labels": NUM_LABELS, **config}
    return tiny_model(MODELS[task], task, seed=seed, **config).train()


def batch(task: str, *, left: int = 0, right: int = 0) -> Batch:
    """Sixteen examples of 2 to 12 tokens; what has no gold label is crowded into the first half."""
    texts = [[5 + (3 * row + column) % 40 for column in range(2 + 5 * row % 11)] for row in range(NUM_EXAMPLES)]
    labels = [IGNORE if row < 8 and row % 4 else row % 2 for row in range(NUM_EXAMPLES)]
    if task == "image_classification":
        made = replace(image_batch(NUM_EXAMPLES), labels=torch.tensor(labels))
    elif task == "text_classification":
        made = text_batch(texts, labels, left=left, right=right)
    elif task == "embedding":
        made = embedding_batch(texts, labels, left=left, right=right)
    else:
        prompts = [len(text) if row in (1, 2) else row % 2 for row, text in enumerate(texts)]
        made = causal_batch(texts, prompts, left=left, right=right)
    return replace(made, numbers=torch.arange(NUM_EXAMPLES))


def objective(task: str, *names: str, **options: Any) -> Objective:
    """The terms called `names` with `options`, their taps set to the task's models' last layer."""
    taps = {name: NOT_NORMALISED.get((task, name), TAPS[task]) for name in names}
    return Objective({name: make_term(name, **{**options_of(name, tap), **options}) for name, tap in taps.items()})


def distillation(
    task: str,
    *names: str,
    student: PreTrainedModel | None = None,
    teacher: PreTrainedModel | SignalSource | None = None,
    kind: type[DistillationModule] = DistillationModule,
    lr: float = 0.0,
    make_optimizer: Any = None,
    sample: Batch | None = None,
    **options: Any,
) -> Any:
    """A narrow student of a wider teacher, of other weights, on the terms called `names`; prepared on `sample`.

    With the default rate of 0 a step leaves the weights alone, so that steps can be compared.
    """
    student = model(task, seed=1, hidden_size=8) if student is None else student
    teacher = model(task, num_labels=student.config.num_labels) if teacher is None else teacher
    source = LiveTeacher(teacher, TASKS[task], None) if isinstance(teacher, PreTrainedModel) else teacher
    terms = objective(task, *names, **options.pop("term_options", {}))
    locate(terms, student, source.model)  # type: ignore[arg-type]
    settings = {"weight_decay": 0.0, "clip_norm": None, "num_examples": NUM_EXAMPLES, **options}
    module = kind(
        student,
        terms,
        TASKS[task],
        source,
        make_optimizer=make_optimizer or functools.partial(torch.optim.SGD, lr=lr),
        make_schedule=functools.partial(schedule_of, name="constant", warmup_fraction=0.0, num_steps=100),
        **settings,
    )
    module.prepare(sample or batch(task))
    return module


class Gradients(pl.Callback):
    """Keeps the gradients with which each optimizer step begins, before clipping."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:  # noqa: ARG002
        named = pl_module.named_parameters()
        self.steps.append({name: value.grad.clone() for name, value in named if value.grad is not None})


def fit(module: pl.LightningModule, data: Any, *, epochs: int = 1, **options: Any) -> pl.Trainer:
    """`module` trained by a real, silent trainer.

    data: batches, on the first of which is validated where `options` ask for it; or a data module.
    """
    defaults: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "use_distributed_sampler": False,
    }
    trainer = pl.Trainer(max_epochs=epochs, **{**defaults, **options})
    if isinstance(data, list):
        trainer.fit(module, loader(data), loader(data[:1]))
    else:
        trainer.fit(module, data)
    return trainer


def loader(batches: list[Batch]) -> DataLoader:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def one_step(module: DistillationModule, batch: Batch) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients by parameter and logged metrics of one optimizer step."""
    gradients = Gradients()
    trainer = fit(module, [batch], callbacks=[gradients])
    return gradients.steps[0], {name: float(value) for name, value in trainer.callback_metrics.items()}


def relative_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """|found - expected| / |expected|, over all parameters together."""
    assert found.keys() == expected.keys()
    first, second = (torch.cat([value.flatten() for value in each.values()]) for each in (found, expected))
    assert second.norm() > 0
    return float((first - second).norm() / second.norm())


def twin(student: PreTrainedModel) -> PreTrainedModel:
    """Another model of the same weights."""
    return copy.deepcopy(student)
