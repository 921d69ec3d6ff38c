"""What an evaluation leaves for people lies where it is looked for, and makes no recipe start again."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import ModelCard

from potstill.commands.report import write_report
from potstill.fingerprint import content_hash
from tests.reporting.evaluated import evaluated


def test_page_and_bill_lie_beside_the_evaluation_and_the_card_beside_the_student(tmp_path: Path) -> None:
    student = tmp_path / "run" / "student"
    student.mkdir(parents=True)
    (student / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "run" / "config.yaml").write_text("run: {name: clinc150-0}\n")
    before = content_hash(student)
    page = write_report(evaluated(), tmp_path / "run", tmp_path / "output")
    assert "Do not ship" in page.read_text()
    bill = json.loads((tmp_path / "output" / "ml-bom.json").read_text())
    assert bill["metadata"]["component"]["name"] == "clinc150-0"
    assert ModelCard.load(student / "README.md").data.to_dict()["model-index"][0]["name"] == "clinc150-0"
    assert content_hash(student) == before, "a card that is written would make a recipe evaluate again"
    (student / "model.safetensors").write_bytes(b"other weights")
    assert content_hash(student) != before
