"""Planted faults of teachers, saved and loaded as any teacher is."""

from __future__ import annotations

import json
import logging
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source, make_module
from potstill.commands.first_batch import sharpness, softening_temperature
from potstill.commands.shared import forget
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate
from potstill.errors import UserError

WORDS = ["eel", "cat", "dog", "owl"]
NAMES = ["no", "yes", "maybe"]


@pytest.fixture(scope="module")
def knowing(saved: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A teacher, and texts whose labels are what it says of them."""
    teacher = Path(saved(labels=NAMES, words=WORDS, seed=2, initializer_range=0.5))
    drawn = random.Random(0)
    texts = [" ".join(drawn.choices(WORDS, k=drawn.randint(1, 9))) for _ in range(300)]
    model, tokenizer = (each.from_pretrained(teacher) for each in (AutoModelForSequenceClassification, AutoTokenizer))
    with torch.no_grad():
        said = model.eval()(**tokenizer(texts, padding=True, return_tensors="pt")).logits.argmax(-1).tolist()
    assert set(said) == set(range(len(NAMES)))
    rows = [{"text": text, "label": NAMES[number]} for text, number in zip(texts, said, strict=True)]
    data = tmp_path_factory.mktemp("data") / "train.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    return teacher, data


@pytest.fixture
def look(knowing: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """Makes the module for a teacher with a fault; returns the warnings."""
    forget()

    def run(plant: Callable[[PreTrainedModel], Any], *overrides: str) -> list[str]:
        teacher, data = knowing
        model: Any = AutoModelForSequenceClassification.from_pretrained(teacher)
        with torch.no_grad():
            plant(model)
        model.save_pretrained(tmp_path / "teacher")
        AutoTokenizer.from_pretrained(teacher).save_pretrained(tmp_path / "teacher")
        options = [
            *("data=files", f"data.source.train={data}", "student=bert_tiny", "student.config.hidden_size=16"),
            *("student.config.intermediate_size=32", "loss=kd", "teacher=pretrained"),
            *(f"teacher.path={tmp_path}/teacher", *overrides),
        ]
        config = typed(composed("train", options), TrainConfig)
        validate(config)
        objective = assemble_objective(config)
        source = assemble_source(config)
        with caplog.at_level(logging.WARNING, "potstill"):
            caplog.clear()
            make_module(config, source, assemble_models(config, source, objective), objective)
        return caplog.messages

    return run


def nothing(model: Any) -> None:
    pass


def constant(*values: float) -> Callable[[Any], None]:
    """A teacher that says the same of every text."""

    def plant(model: Any) -> None:
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor(values))

    return plant


@pytest.mark.parametrize("options", [[], ["data.labels_per_class=5"], ["teacher.remember=true"], ["loss=ce"]])
def test_a_teacher_that_knows_the_labels_is_not_warned_of(look, options):
    assert look(nothing, *options) == []


def test_a_teacher_of_nan_is_refused(look):
    with pytest.raises(UserError, match="NaN or infinite, in 16 of the first 16 rows") as caught:
        look(lambda model: model.classifier.bias[0].fill_(torch.nan))
    assert caught.value.key == "teacher.path"


def test_probabilities_are_not_taken_for_logits_and_their_logarithms_are(look):
    with pytest.raises(UserError, match="probabilities where logits are due") as caught:
        look(constant(0.2, 0.3, 0.5))
    assert caught.value.key == "teacher.path"
    assert not any("probabilit" in message for message in look(constant(*torch.tensor([0.2, 0.3, 0.5]).log().tolist())))


def test_a_saturated_teacher_is_warned_of_with_the_temperature_that_would_help(look):
    def sharpen(model: Any) -> None:
        model.classifier.weight *= 1000
        model.classifier.bias *= 1000

    [message] = look(sharpen)
    assert message.startswith("loss.term.kd.temperature=2: teacher is so certain")
    [found] = re.findall(r"loss\.term\.kd\.temperature=([\d.e+]+) would make it 0\.9\.", message)
    assert look(sharpen, f"loss.term.kd.temperature={float(found)}") == []
    [scheduled] = look(sharpen, "loss.term.kd.temperature={schedule: linear, start: 3.0, end: 1.0}")
    assert scheduled.startswith("loss.term.kd.temperature=3:")
    assert look(sharpen, "loss.term.kd.standardise=true") == [], "standardised logits are not sharp"


def test_a_teacher_with_its_labels_mixed_up_is_no_better_than_a_guess_and_said_to_be(look):
    def rotate(model: Any) -> None:
        names = [*NAMES[1:], NAMES[0]]
        model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: n for n, name in enumerate(names)}

    [message] = look(rotate)
    assert re.search(r"teacher agrees with \d+ of \d+ gold labels, no better than a guess among 3 classes", message)
    assert "id2label" in message
    assert look(rotate, "data.labels_per_class=10") == [], "thirty labels are too few to say so"


def test_each_of_several_teachers_is_looked_at(look, knowing, tmp_path):
    members = {"good": knowing[0], "bad": tmp_path / "teacher"}
    given = [f"+teacher.members.{name}.path={path}" for name, path in members.items()]
    with pytest.raises(UserError) as caught:
        look(lambda model: model.classifier.bias.fill_(torch.inf), "teacher=several", "teacher.path=null", *given)
    assert caught.value.key == "teacher.members.bad.path"


def test_the_temperature_named_is_the_one_that_makes_a_target_useful():
    logits = 50 * torch.randn(32, 7, generator=torch.Generator().manual_seed(0))
    temperature = softening_temperature(logits)
    assert temperature is not None
    assert sharpness(logits, temperature) == pytest.approx(0.9, abs=1e-3)
    assert softening_temperature(1e9 * logits) is None
