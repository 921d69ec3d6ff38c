"""Generated answers from the command line to every place that a person reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data import examples

DATA = (
    *("data=files", "data.task=causal_lm", "data.source.train=train.jsonl", "data.source.test=test.jsonl"),
    *("data.columns={text: null, label: null, prompt: question, completion: answer}", "data.slices=[kind]"),
)
STUDENT = ("student=llama_stdlib_tiny", "student.tokenizer=tokenizer")
ANSWERS = ("generate.limit=12", "generate.max_new_tokens=3")


def write_rows(path: str, numbers: range) -> None:
    rows = [
        {"question": f"which {number}?", "answer": f"it is\n#### {number}", "kind": "odd" if number % 2 else "even"}
        for number in numbers
    ]
    Path(path).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


@pytest.mark.slow
def test_answers_are_in_the_evaluation_and_in_all_that_is_made_of_it(potstill):
    write_rows("train.jsonl", range(40))
    write_rows("test.jsonl", range(40, 64))
    examples.tokenizer().save_pretrained("tokenizer")
    made = potstill("train", *DATA, *STUDENT, "loss=ce", "teacher=none", "debug=one_batch", "run.dir=student")
    assert made.code == 0, made.err

    command = ("evaluate", "run=student", "teacher_path=student/student", "logger=none", "mixes=[]", *ANSWERS)
    first = potstill(*command, "bar=none", "bar.name=mine", "bar.quality=0.9", "bar.min_items=5")
    assert first.code == 3, first.err
    found = evaluation()
    assert (found["metric"], found["data"]["num_labelled"]) == ("numeric_match", 12)
    assert found["generation"]["without"] == {}
    student = found["models"]["student"]["overall"]
    assert (student["generation"]["n"], student["num_items"], student["numeric_match"]) == (12, 12, 0.0)
    assert student["generation"]["truncated"] > 0, "three tokens are no answer"
    assert student["against_teacher"]["answer_agreement"] <= 1.0
    assert "final number right" in first.out
    for page in ("student/report.html", "student/student/README.md"):
        text = Path(page).read_text(encoding="utf-8")
        assert "right final numbers" in text
        assert "Answers to 12 of 24 prompts" in text
    assert "generate.limit=12" in found["provenance"]["rerun"]

    again = potstill(*command, "bar=none", "bar.name=mine", "bar.quality=0.9", "bar.min_items=5", "output=again")
    assert again.code == 3
    assert json.dumps({**evaluation("again"), "measured": None}) == json.dumps({**found, "measured": None})
    assert Path("again/items.jsonl").read_bytes() == Path("student/items.jsonl").read_bytes()
    compared = potstill("compare", "student", "again", "output=compared")
    assert compared.code == 0, compared.err
    pair = json.loads(Path("compared/comparison.json").read_text())["pairs"][0]
    assert (pair["metric"], pair["n"], pair["discordant"]) == ("numeric_match", 12, [0, 0])


@pytest.mark.slow
def test_conversations_are_answered_from_the_command_line(potstill):
    for path, numbers in (("train.jsonl", range(40)), ("test.jsonl", range(40, 64))):
        asked = [
            ({"role": "user", "content": f"which {n}"}, {"role": "assistant", "content": f"#### {n}"}) for n in numbers
        ]
        Path(path).write_text("\n".join(json.dumps({"chat": turns}) for turns in asked), encoding="utf-8")
    examples.tokenizer(chat_template=examples.CHAT).save_pretrained("tokenizer")
    data = (*DATA[:-2], "data.columns={text: null, label: null, messages: chat}")
    made = potstill("train", *data, *STUDENT, "loss=ce", "teacher=none", "debug=one_batch", "run.dir=student")
    assert made.code == 0, made.err
    judged = potstill("evaluate", "run=student", "logger=none", "mixes=[]", *ANSWERS, "bar=none")
    assert judged.code == 0, judged.err
    found = evaluation()
    assert (found["metric"], found["generation"]["n"], found["generation"]["num_prompts"]) == ("numeric_match", 12, 24)
    assert found["models"]["student"]["overall"]["generation"]["n"] == 12
    assert "Answers to 12 of 24 prompts" in Path("student/report.html").read_text(encoding="utf-8")


def evaluation(directory: str = "student") -> dict[str, Any]:
    return json.loads(Path(directory, "evaluation.json").read_text())
