"""Runs to mine, on which it is known where the student fails: its training data lacks one intent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill.commands.train import train
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from tests.audit.examples import sentences

INTENTS = {"pay": "bank", "rent": "bank", "fly": "travel", "stay": "travel"}
LACKING = "fly"
COLUMNS = ["data=mined", "data.columns.label=intent", "data.slices=[domain]"]
SMALL = ["student=bert_tiny", "student.config.hidden_size=16", "student.config.intermediate_size=32"]
STEPS = ["optim.max_steps=40", "optim.max_epochs=null", "optim.optimizer.lr=2.0e-2", "data.batch_size=32"]
QUIET = ["logger=none", "validate_every=40"]


def rows(num: int, seed: int, intents: Sequence[str] = tuple(INTENTS)) -> list[dict[str, str]]:
    """Made-up words, and one that says the intent."""
    named = [intents[number % len(intents)] for number in range(num)]
    texts = sentences(num, seed, num_words=4)
    return [
        {"text": f"{text} please {intent} it", "intent": intent, "domain": INTENTS[intent]}
        for text, intent in zip(texts, named, strict=True)
    ]


def write(file: Path, table: Sequence[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in table))
    return str(file)


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def begin(directory: Path, tokenizer: str) -> dict[str, str]:
    """A teacher that knows every intent, a student that never met one of them, and a pool. Paths by name."""
    few = tuple(intent for intent in INTENTS if intent != LACKING)
    tables = {
        "train": rows(120, 1, few),
        "all": rows(160, 2),
        "validation": rows(240, 3),
        "test": rows(80, 4),
        "pool": rows(200, 5),
    }
    made = {name: write(directory / f"{name}.jsonl", table) for name, table in tables.items()}
    made["tokenizer"] = tokenizer
    made["teacher"] = train_here(directory / "teacher", of_data({**made, "train": made["all"]}))
    made["run"] = go_on(directory / "run", made)
    return made


def go_on(directory: Path, made: dict[str, str], *added: str) -> str:
    """Train a student on what `begin` gave it, and on what was mined."""
    mined = ",".join(str(Path(each).absolute()) for each in added)
    return train_here(directory, [*of_student(made), f"data.source.added=[{mined}]"])


def of_student(made: dict[str, str]) -> list[str]:
    taught = ["teacher=pretrained", f"teacher.path={made['teacher']}/student", "loss=kd"]
    return [*of_data(made), *taught]


def of_data(made: dict[str, str]) -> list[str]:
    source = [f"data.source.source.{split}={made[split]}" for split in ("train", "validation", "test")]
    return [*COLUMNS, *SMALL, *STEPS, *QUIET, *source, f"student.tokenizer={made['tokenizer']}"]


def train_here(directory: Path, overrides: Sequence[str]) -> str:
    given = [*overrides, f"run.dir={directory}", "run.name=test"]
    train(typed(composed("train", given), TrainConfig), given)
    return str(directory)
