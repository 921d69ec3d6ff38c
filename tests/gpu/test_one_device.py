"""One accelerator: does it train what a CPU trains? Every test runs on a CPU too where the question makes sense there.

Where there is no accelerator, those marked `gpu` are skipped, which `pytest -rs` says.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from safetensors.torch import load_file
from torch import Tensor

from potstill.commands.fit import make_trainer
from potstill.config.schema import HardwareConfig, OptimConfig, TrainConfig
from potstill.hardware.memory import Estimate, bytes_of, estimate, is_out_of_memory
from potstill.hardware.place import Place
from potstill.module import DistillationModule
from potstill.tracking.checkpoint_file import CheckpointFile
from tests.integration.distil import (
    LOGIT_TASKS,
    Gradients,
    batch,
    distillation,
    fit,
    loader,
    model,
    relative_difference,
    twin,
)
from tests.models.tiny import text_batch

TASK = "text_classification"
TERMS = ("ce", "kd", "hidden_mse")
ADAMW = functools.partial(torch.optim.AdamW, lr=1e-3, fused=True)
DEVICES = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
ONLY_GPU = [pytest.param("gpu", marks=pytest.mark.gpu)]
FLOAT32, BFLOAT16, FLOAT16 = 1e-4, 5e-2, 1e-2  # relative differences of whole gradients
SCALE = 2.0**16  # of the loss in float16, to begin with


@pytest.fixture(autouse=True)
def _settings_are_put_back() -> Iterator[None]:
    precision, deterministic = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_float32_matmul_precision(precision)
    torch.use_deterministic_algorithms(deterministic)


def device_of(accelerator: str) -> str:
    return "cuda" if accelerator == "gpu" else "cpu"


def first_step(task: str, **options: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients of one step, on the CPU, and what was logged."""
    gradients = Gradients()
    trainer = fit(distillation(task, *TERMS, max_examples=5), [batch(task)], callbacks=[gradients], **options)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return {name: value.cpu().float() for name, value in gradients.steps[0].items()}, logged


@pytest.mark.parametrize("accelerator", DEVICES)
@pytest.mark.parametrize("task", LOGIT_TASKS)
def test_gradients_in_float32_are_those_of_the_cpu(task: str, accelerator: str) -> None:
    torch.set_float32_matmul_precision("highest")
    found, logged = first_step(task, accelerator=accelerator)
    expected, expected_logged = first_step(task)
    assert relative_difference(found, expected) < FLOAT32
    assert logged == pytest.approx(expected_logged, rel=FLOAT32)


@pytest.mark.parametrize("accelerator", DEVICES)
@pytest.mark.parametrize("task", LOGIT_TASKS)
def test_bfloat16_is_near_float32(task: str, accelerator: str) -> None:
    found, logged = first_step(task, accelerator=accelerator, precision="bf16-mixed")
    expected, expected_logged = first_step(task)
    assert 0.0 < relative_difference(found, expected) < BFLOAT16
    assert logged["train/loss"] == pytest.approx(expected_logged["train/loss"], rel=0.01)


def in_float16(module: DistillationModule, num_steps: int, accelerator: str) -> tuple[pl.Trainer, Gradients, float]:
    """Steps on one batch, what they clipped, and the scale of the loss at the end.

    On a CPU Lightning would take bfloat16 for float16, unless handed the plugin.
    """
    plugin = MixedPrecision("16-mixed", device_of(accelerator))
    gradients = Gradients()
    trainer = fit(module, [batch(TASK)] * num_steps, accelerator=accelerator, plugins=[plugin], callbacks=[gradients])
    assert plugin.scaler is not None
    return trainer, gradients, plugin.scaler.get_scale()


@pytest.mark.parametrize("accelerator", DEVICES)
@pytest.mark.parametrize("fused", [False, True])
def test_float16_clips_gradients_and_not_the_scale_of_the_loss(fused: bool, accelerator: str) -> None:
    """An optimizer that is fused takes the scale out of the gradients by itself, after they were clipped."""
    make_optimizer = functools.partial(torch.optim.AdamW, lr=1e-3, fused=fused)
    module = distillation(TASK, *TERMS, make_optimizer=make_optimizer, clip_norm=0.1)
    trainer, _, scale = in_float16(module, 1, accelerator)
    expected = first_step(TASK)[1]["train/grad_norm"]
    assert scale == SCALE
    assert float(trainer.callback_metrics["train/grad_norm"]) == pytest.approx(expected, rel=FLOAT16)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # the first step is the one left out
@pytest.mark.parametrize("accelerator", DEVICES)
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_overflows_in_float16_is_left_out_and_halves_the_scale(fused: bool, accelerator: str) -> None:
    make_optimizer = functools.partial(torch.optim.AdamW, lr=1e-3, fused=fused)
    module = distillation(TASK, *TERMS, make_optimizer=make_optimizer, clip_norm=1.0)
    for term in module.objective.terms.values():
        term.weight = 1e4  # times the scale, beyond 65,504
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    _, _, scale = in_float16(module, 1, accelerator)
    assert scale == SCALE / 2
    assert all(torch.equal(value.cpu(), before[name]) for name, value in module.named_parameters())


@pytest.mark.parametrize("accelerator", DEVICES)
@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_used_where_it_is_asked_for(tf32: bool, accelerator: str) -> None:
    config = TrainConfig(hardware=HardwareConfig(accelerator=accelerator, tf32=tf32), optim=OptimConfig(max_steps=1))
    make_trainer(config, distillation(TASK, "ce"), [], Place(1, 1, rank=0, is_rank=False))
    assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    if accelerator == "gpu" and torch.cuda.get_device_capability() >= (8, 0):
        one, other = (torch.randn(512, 512, dtype=torch.float64, device="cuda") for _ in range(2))
        exact = one @ other
        error = ((one.float() @ other.float()).double() - exact).norm() / exact.norm()
        assert (error > 1e-5) == tf32


@pytest.mark.slow
@pytest.mark.parametrize("accelerator", DEVICES)
@pytest.mark.parametrize("task", LOGIT_TASKS)
def test_a_compiled_student_has_the_same_gradients(task: str, accelerator: str) -> None:
    """On a CPU without code generation, which takes a C++ compiler and minutes: traced and run as it is."""
    gradients = []
    student = model(task, seed=1, hidden_size=8)
    for compiled in (False, True):
        each, steps = twin(student), Gradients()
        if compiled:
            each.compile(backend="inductor" if accelerator == "gpu" else "eager")
        fit(distillation(task, *TERMS, student=each), [batch(task)], callbacks=[steps], accelerator=accelerator)
        gradients.append(steps.steps[0])
    torch.compiler.reset()
    assert relative_difference(gradients[1], gradients[0]) < FLOAT32


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("accelerator", DEVICES)
def test_shards_on_one_rank_train_as_the_whole(accelerator: str, tmp_path: Path) -> None:
    """In processes of their own: sharding begins a process group."""
    whole = train(tmp_path / "whole", f"hardware.accelerator={accelerator}")
    shards = train(tmp_path / "shards", f"hardware.accelerator={accelerator}", "hardware.strategy=fsdp")
    assert relative_difference(shards, whole) < FLOAT32


def train(run: Path, *hardware: str) -> dict[str, Tensor]:
    """The student that `potstill train` exports after three steps."""
    fixed = ["student=vit_digits_tiny", "optim.max_epochs=null", "optim.max_steps=3", "logger=none", f"run.dir={run}"]
    command = [sys.executable, "-m", "potstill", "train", *fixed, *hardware]
    subprocess.run(command, check=True, cwd=run.parent, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200)
    assert json.loads((run / "manifest.json").read_text())["training"]["steps"] == 3
    return load_file(run / "student" / "model.safetensors")


@pytest.mark.parametrize("accelerator", DEVICES)
def test_a_run_that_goes_on_ends_with_the_same_bits(
    accelerator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, an optimizer that remembers, and algorithms that add up in a fixed order."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def run(num_epochs: int, checkpoint: Path | None = None) -> tuple[pl.Trainer, DistillationModule]:
        student = model(TASK, seed=1, hidden_size=8, hidden_dropout_prob=0.2)
        module = distillation(TASK, *TERMS, student=student, make_optimizer=ADAMW, clip_norm=1.0, seed=3)
        quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(
            max_epochs=num_epochs,
            accelerator=accelerator,
            deterministic=True,
            plugins=[CheckpointFile()],
            limit_val_batches=0,
            enable_checkpointing=False,
            log_every_n_steps=1,
            **quiet,
        )
        batches = loader([batch(TASK)])
        trainer.fit(module, batches, batches, ckpt_path=checkpoint, weights_only=True)
        return trainer, module

    _, whole = run(6)
    first, _ = run(3)
    first.save_checkpoint(tmp_path / "half.ckpt")
    trainer, resumed = run(6, tmp_path / "half.ckpt")
    assert trainer.global_step == 6
    expected = dict(whole.named_parameters())
    assert all(torch.equal(value, expected[name]) for name, value in resumed.named_parameters())


def estimated(module: DistillationModule, num_examples: int, length: int, device: str) -> Estimate:
    """What the preflight of a micro-batch of so many long examples says."""
    return estimate(
        module.student,
        module.objective,
        teacher_bytes=bytes_of(module.teacher.model.parameters()),  # type: ignore[union-attr]
        make_optimizer=module.make_optimizer,
        loss_of=lambda size: module.objective(
            module.step_of(long_batch(size, length).to(torch.device(device))),
            module.task.count_rows(long_batch(size, length)),
        ),
        num_examples=num_examples,
    )


def long_batch(num_examples: int, length: int) -> Any:
    texts = [[5 + (7 * row + column) % 40 for column in range(length)] for row in range(num_examples)]
    return text_batch(texts, [row % 2 for row in range(num_examples)])


@pytest.mark.parametrize("accelerator", DEVICES)
def test_what_a_step_holds_was_estimated(accelerator: str) -> None:
    """On a CPU, where no allocator keeps count: weights, gradients and optimizer only."""
    width, num_examples, length = (256, 32, 128) if accelerator == "gpu" else (16, 4, 8)
    sizes: dict[str, Any] = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 4}
    student = model(TASK, seed=1, **sizes)
    teacher = model(TASK, **sizes)
    module = distillation(TASK, "ce", "kd", student=student, teacher=teacher, make_optimizer=ADAMW)
    found = estimated(module, num_examples, length, "cpu")
    if accelerator == "gpu":
        torch.cuda.reset_peak_memory_stats()
    trainer = fit(module, [long_batch(num_examples, length)] * 2, accelerator=accelerator)
    if accelerator == "gpu":
        assert torch.cuda.max_memory_allocated() == pytest.approx(found.total, rel=0.3)
    held = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    assert bytes_of(held) == found.optimizer
    assert bytes_of(chain(student.parameters(), student.buffers())) == found.parameters


@pytest.mark.parametrize("accelerator", DEVICES)
def test_memory_that_runs_out_is_known_as_that(accelerator: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, device=device_of(accelerator))
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("accelerator", ONLY_GPU)
def test_students_and_teachers_are_on_the_device(accelerator: str) -> None:
    devices: set[str] = set()

    class Devices(pl.Callback):  # in training: when it ends, the trainer takes the student back to the CPU
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:  # noqa: ARG002
            devices.update(each.device.type for each in chain(module.parameters(), module.teacher.model.parameters()))  # type: ignore[union-attr]

    module = distillation(TASK, *TERMS)
    fit(module, [batch(TASK)], accelerator=accelerator, callbacks=[Devices()])
    assert devices == {"cuda"}
