"""A whole training: what the checkpoints hold, what is exported, and what is left when the loss breaks."""

from __future__ import annotations

import copy
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from potstill.data.batch import IGNORE, Batch
from potstill.models.export import export
from potstill.models.forward import forward
from potstill.models.task import TASKS
from potstill.signals.protocol import Needs
from potstill.tracking.checkpoints import LastCheckpoint, best_checkpoint, best_path
from tests.wandb_log import read_back

from .distil import batch, distillation, fit, loader, model

TASK = "text_classification"
PROJECTOR = "objective.terms.hidden_mse.projection."
PLAIN_TRANSFORMERS = """
import sys, torch
from transformers import AutoModelForSequenceClassification
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
with torch.no_grad():
    torch.save(model(**torch.load(sys.argv[2])).logits, sys.argv[3])
assert not any(name.partition(".")[0] == "potstill" for name in sys.modules)
"""


@dataclass
class Trained:
    directory: Path
    module: Any
    teacher: PreTrainedModel
    start: dict[str, Tensor]
    teacher_start: dict[str, Tensor]
    best: Path | None

    def checkpoint(self, name: str) -> dict[str, Any]:
        return torch.load(self.directory / f"{name}.ckpt", weights_only=True)


def contradicting(batch: Batch) -> Batch:
    """The same texts with the other label: what learns the training labels gets worse on it."""
    return Batch(batch.inputs, torch.where(batch.labels == IGNORE, IGNORE, 1 - batch.labels), batch.keys)


class Loaders(pl.LightningDataModule):
    def __init__(self, train: list[Batch], validation: list[Batch]) -> None:
        super().__init__()
        self.train_dataloader, self.val_dataloader = (lambda: loader(train)), (lambda: loader(validation))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Four epochs whose validation gets worse; the teacher is many times the student's size."""
    directory = tmp_path_factory.mktemp("run")
    teacher = model(TASK, hidden_size=64, intermediate_size=256)
    torch.manual_seed(0)
    module = distillation(
        TASK,
        "ce",
        "kd",
        "hidden_mse",
        teacher=teacher,
        make_optimizer=functools.partial(torch.optim.AdamW, lr=0.02),
        max_examples=5,
    )
    module.objective.terms["ce"].weight = 10.0
    start, teacher_start = (copy.deepcopy(each.state_dict()) for each in (module, teacher))
    callbacks = [best_checkpoint(str(directory), TASK, "val/loss"), LastCheckpoint(str(directory))]
    trainer = fit(
        module,
        Loaders([batch(TASK)] * 3, [contradicting(batch(TASK))]),
        epochs=4,
        callbacks=callbacks,
        enable_checkpointing=True,
        limit_val_batches=1.0,
    )
    export(module.student, best_path(trainer), None, directory / "student")
    return Trained(directory, module, teacher, start, teacher_start, best_path(trainer))


@pytest.mark.parametrize("name", ["best", "last"])
def test_no_checkpoint_holds_the_teacher(trained: Trained, name: str) -> None:
    written = (trained.directory / f"{name}.ckpt").read_bytes()

    def holds(weight: Tensor) -> bool:
        return weight.contiguous().numpy().tobytes() in written

    saved = trained.checkpoint(name)["state_dict"]
    assert all(holds(weight) for weight in saved.values()), "bytes of weights cannot be found in this kind of file"
    weights = [weight for weight in trained.teacher.state_dict().values() if weight.unique().numel() > 1]
    assert len(weights) > 10
    assert not any(holds(weight) for weight in weights)


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_are_as_large_as_student_projector_and_optimizer(trained: Trained, name: str) -> None:
    checkpoint = trained.checkpoint(name)
    assert checkpoint["state_dict"].keys() == trained.start.keys()
    trainable = sum(parameter.nbytes for parameter in trained.module.parameters())
    overhead = 1024 * (3 * len(trained.start) + 20)
    size = (trained.directory / f"{name}.ckpt").stat().st_size
    assert 3 * trainable < size < 3 * trainable + overhead
    assert size < sum(parameter.nbytes for parameter in trained.teacher.parameters())


def test_the_teacher_is_bit_for_bit_what_it_was(trained: Trained) -> None:
    after = trained.teacher.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in trained.teacher_start.items())
    assert not any(each.training for each in trained.teacher.modules())


def test_the_projector_learns_and_is_kept_but_not_exported(trained: Trained) -> None:
    names = {name for name in trained.start if not name.startswith("student.")}
    assert names == {f"{PROJECTOR}weight", f"{PROJECTOR}bias"}
    last = trained.checkpoint("last")["state_dict"]
    for name in names:
        assert not torch.equal(last[name], trained.start[name])
    exported = load_file(trained.directory / "student" / "model.safetensors")
    assert exported.keys() == trained.module.student.state_dict().keys()


def test_the_best_weights_on_validation_are_exported_and_not_the_last(trained: Trained) -> None:
    assert trained.best == trained.directory / "best.ckpt"
    best, last = trained.checkpoint("best"), trained.checkpoint("last")
    assert best["global_step"] < last["global_step"] == 12
    exported = load_file(trained.directory / "student" / "model.safetensors")
    assert all(torch.equal(value, best["state_dict"][f"student.{name}"]) for name, value in exported.items())
    assert any(not torch.equal(value, last["state_dict"][f"student.{name}"]) for name, value in exported.items())


@pytest.mark.slow
def test_transformers_alone_loads_the_student_and_gives_the_same_logits(trained: Trained, tmp_path: Path) -> None:
    inputs = batch(TASK).inputs
    torch.save(inputs, tmp_path / "inputs.pt")
    student, written = trained.directory / "student", tmp_path / "logits.pt"
    command = [sys.executable, "-c", PLAIN_TRANSFORMERS, str(student), str(tmp_path / "inputs.pt"), str(written)]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    with torch.no_grad():
        logits = forward(trained.module.student.eval(), batch(TASK), TASKS[TASK], Needs(logits=True)).logits
    torch.testing.assert_close(torch.load(written), logits, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_run_whose_loss_breaks_is_recorded_as_diverged(potstill: Callable[..., Any], tmp_path: Path) -> None:
    options = (
        "optim=sgd",
        "optim.optimizer.lr=1.0e+30",
        "optim.clip_norm=null",
        "logger=wandb",
        "logger.mode=offline",
        "limit_batches=4",
        "log_every=1",
    )
    outcome = potstill("train", "student=vit_digits_tiny", "run.dir=run", *options)
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    shown = outcome.words
    assert re.search(
        r"After [1-4] optimizer steps loss\.term\.ce is not finite.*, in the micro-batch of examples", shown
    )
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "diverged"
    assert manifest["finished_at"]
    assert not (tmp_path / "run" / "student").exists()
    run = read_back(tmp_path / "run")
    assert run["summary"]["status"] == run["config"]["manifest"]["status"] == "diverged"


@pytest.mark.slow
def test_batch_statistics_and_micro_batches_are_refused_on_the_command_line(potstill: Callable[..., Any]) -> None:
    outcome = potstill("train", "student=resnet_digits_tiny", "hardware.micro_batch_examples=8", "logger=none")
    assert outcome.code == 2
    assert "hardware.micro_batch_examples=8" in outcome.out + outcome.err
