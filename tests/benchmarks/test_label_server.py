"""A classifier asked for its labels as text, and a student trained on those: against the server itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.label_server import LabelServer
from tests.generation.servers import overrides
from tests.generation.test_generate import dropped, exported

WORDS = ["eel", "cat", "dog", "owl"]
TEXTS = [f"{first} {second} {third}" for first in WORDS for second in WORDS for third in WORDS]
LABELS = ["up", "down", "aside"]


@pytest.fixture(scope="module")
def classifier(saved) -> str:
    """Its logits have mean 0 and deviation 1 over TEXTS, so that each label is named."""
    path = saved(labels=LABELS, words=WORDS)
    tokenizer, model = loaded(path)
    with torch.no_grad():
        logits = model(**tokenizer(TEXTS, return_tensors="pt")).logits
        model.classifier.bias.copy_((model.classifier.bias - logits.mean(dim=0)) / logits.std(dim=0))
        model.classifier.weight /= logits.std(dim=0)[:, None]
    model.save_pretrained(path)
    return path


def loaded(path: str) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(path), AutoModelForSequenceClassification.from_pretrained(path)


@pytest.fixture(scope="module")
def server(classifier: str) -> Iterator[LabelServer]:
    with LabelServer(classifier) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def address(server: LabelServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/v1"


def named(classifier: str, texts: list[str]) -> list[str]:
    """By the model itself."""
    tokenizer, model = loaded(classifier)
    with torch.inference_mode():
        return [LABELS[model(**tokenizer(text, return_tensors="pt")).logits.argmax()] for text in texts]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
def test_a_student_learns_what_the_server_named_and_no_gold_label(server, classifier, tmp_path, potstill):
    prompts = write(tmp_path / "prompts.jsonl", [{"text": text, "gold": "up"} for text in TEXTS])
    model = {"teacher__model": server.name, "generation__labels": "[UP,down]"}
    given = [*overrides(address(server), prompts, **model), "generation=label", "generation.prompt='{{ text }}'"]
    assert potstill("generate", *given).code == 0
    truth = dict(zip(TEXTS, named(classifier, TEXTS), strict=True))
    assert set(truth.values()) == set(LABELS), "a teacher that says the same to everything shows nothing"
    spelled = {"up": "UP", "down": "down"}
    kept = {text: spelled[label] for text, label in truth.items() if label in spelled}
    assert {row["prompt"]: row["answer"] for row in exported()} == kept
    assert set(dropped()) == {text for text, label in truth.items() if label == "aside"}
    assert set(dropped().values()) == {"label: 'aside' is none of the 2 labels"}

    test = write(tmp_path / "test.jsonl", [{"query": f"{text} x", "gold": label} for text, label in kept.items()])
    source = ["data=generated_labels", "data.source.path=out", f"data.source.test={test}"]
    source += ["+data.source.fields.prompt='{{ query }}'", "+data.source.fields.answer='{{ gold }}'"]
    student = ["student=bert_tiny", f"student.tokenizer={classifier}", "optim.max_steps=1", "optim.max_epochs=null"]
    assert potstill("train", *source, *student, "run.dir=trained", "callbacks=none", "logger=none").code == 0
    assert json.loads(Path("trained/student/config.json").read_text())["id2label"] == {"0": "UP", "1": "down"}


def test_what_the_server_cannot_do_is_no_silent_200(server):
    message = {"messages": [{"role": "user", "content": "eel"}]}
    asked = {"logprobs": {**message, "model": server.name, "logprobs": True}, "model": {**message, "model": "x"}}
    asked["messages"] = {"model": server.name}
    replies = {what: httpx.post(f"{address(server)}/chat/completions", json=body) for what, body in asked.items()}
    assert {what: reply.status_code for what, reply in replies.items()} == {
        "logprobs": 400,
        "model": 404,
        "messages": 400,
    }
    assert "does not take logprobs" in replies["logprobs"].json()["error"]["message"]
    assert httpx.post(f"{address(server)}/completions", json={}).status_code == 404
