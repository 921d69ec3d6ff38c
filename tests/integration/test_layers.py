"""Losses on layers by number, from the command line to the gradient: they train, whatever runs the layers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from potstill.hardware.sharding import checkpoint_activations

from .distil import batch, distillation, model, one_step, relative_difference

TEXT = "text_classification"
HEADS = "loss.term.minilm_v2.num_heads=4"
PRESETS = {
    "minilm": [],
    "minilmv2": [HEADS],
    "kd_minilmv2": [HEADS, "hardware.activation_checkpointing=true"],
    "tinybert_stage1": [],
    "tinybert_stage2": [],
    "tinybert": ["student.config.num_attention_heads=1", "hardware.micro_batch_tokens=40"],
    "pkd": ["loss.term.pkd.projector=linear"],
    "kd_hidden": ["loss.term.hidden_mse.teacher_layer=uniform"],
    "similarity_preserving": ["loss.term.similarity_preserving.teacher_layer=last"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["eel", "cat", "dog"]
    texts = [" ".join(words[(number >> shift) % 3] for shift in range(2 + number % 4)) for number in range(80)]
    file = tmp_path_factory.mktemp("data") / "train.jsonl"
    rows = [{"text": text, "label": ("no", "yes")["eel" in text]} for text in texts]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture(scope="module")
def teacher(saved: Callable[..., str]) -> str:
    return saved(words=["eel", "cat", "dog"], num_hidden_layers=4, initializer_range=0.3)


def overrides(loss: str, data: Path, teacher: str) -> list[str]:
    narrow = ["student.config.hidden_size=8", "student.config.intermediate_size=16"]
    steps = ["optim.max_epochs=null", "optim.max_steps=60", "optim.schedule=constant", "optim.optimizer.lr=0.01"]
    return [
        *("data=files", f"data.source.train={data}", "student=bert_tiny", *narrow, *steps, "data.batch_size=32"),
        *("teacher=pretrained", f"teacher.path={teacher}", f"loss={loss}"),
        *("logger=csv", "log_every=1", "run.dir=run"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("loss", PRESETS)
def test_presets_on_layers_train_on_the_command_line(
    loss: str, potstill: Callable[..., Any], data: Path, teacher: str
) -> None:
    outcome = potstill("train", *overrides(loss, data, teacher), *PRESETS[loss])
    assert outcome.code == 0, outcome.err
    with open("run/metrics.csv") as file:
        losses = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    is_judged = loss in ("tinybert_stage2", "tinybert", "pkd", "kd_minilmv2", "kd_hidden", "similarity_preserving")
    assert Path("run/checkpoints/best.ckpt").exists() == is_judged, "a head that no term trains says nothing"
    assert ("the last weights are kept" in " ".join(outcome.out.split())) != is_judged


@pytest.mark.parametrize(
    ("loss", "options", "words"),
    [
        ("minilmv2", ["loss.term.minilm_v2.teacher_layer=4"], ["teacher_layer=4", "no layers [4]", "0 to 3"]),
        ("minilmv2", [], ["num_heads=48", "[8, 16]", "num_heads=8"]),
        ("minilm", ["student.config.num_attention_heads=1"], ["student has 1 and the teacher 2", "minilm_v2"]),
        ("tinybert", ["student.config.num_hidden_layers=5"], ["5 layers of a student", "a teacher's 4"]),
        ("pkd", [], ["loss.term.pkd.projector='none'", "projector=linear"]),
        ("minilmv2", ["teacher=none", "teacher.path=null"], ["is no teacher"]),
    ],
)
def test_layers_that_cannot_be_compared_are_refused_before_training(
    loss: str, options: list[str], words: list[str], potstill: Callable[..., Any], data: Path, teacher: str
) -> None:
    outcome = potstill("train", *overrides(loss, data, teacher), *options)
    assert outcome.code == 2
    for word in words:
        assert word in outcome.words
    assert not Path("run/checkpoints").exists()


@pytest.mark.parametrize("term", ["minilm_v2", "tinybert_attention", "tinybert_hidden", "pkd"])
def test_recomputed_layers_have_the_gradient_of_kept_ones(term: str) -> None:
    expected, _ = one_step(distillation(TEXT, term), batch(TEXT))
    student = model(TEXT, seed=1, hidden_size=8)
    checkpoint_activations(student)
    found, _ = one_step(distillation(TEXT, term, student=student), batch(TEXT))
    assert any("query" in name for name in expected)
    assert relative_difference(found, expected) <= 1e-5


@pytest.mark.slow
def test_compiled_layers_have_the_gradient_of_the_others() -> None:
    names = ("minilm_v2", "tinybert_attention", "tinybert_hidden", "pkd")
    expected, _ = one_step(distillation(TEXT, *names), batch(TEXT))
    student = model(TEXT, seed=1, hidden_size=8)
    module = distillation(TEXT, *names, student=student)
    student.compile(backend="eager")
    found, _ = one_step(module, batch(TEXT))
    assert relative_difference(found, expected) <= 1e-5


def test_the_attention_of_a_layer_teaches_no_layer_above_it() -> None:
    term_options = {"student_layer": 0, "teacher_layer": -2}
    gradients, metrics = one_step(distillation(TEXT, "minilm_v2", term_options=term_options), batch(TEXT))
    assert metrics["train/loss"] > 0
    taught = [name for name, value in gradients.items() if torch.any(value != 0)]
    assert any(".layer.0.attention.self.value" in name for name in taught)
    assert not any(".layer.1." in name or ".layer.0.output" in name for name in taught)


def test_layers_of_several_teachers_at_once_are_refused(potstill: Callable[..., Any], data: Path, teacher: str) -> None:
    members = [f"+teacher.members.{name}.path={teacher}" for name in ("one", "other")]
    rest = [each for each in overrides("minilmv2", data, teacher) if not each.startswith("teacher")]
    outcome = potstill("train", *rest, HEADS, "teacher=several", *members)
    assert outcome.code == 2
    assert "loss.term.minilm_v2='MiniLMv2'" in outcome.words
    assert "their hidden states have no mean" in outcome.words
