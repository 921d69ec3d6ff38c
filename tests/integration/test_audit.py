"""`potstill audit`: what was planted in the data is found, and named where a person looks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.audit.examples import sentences

INTENTS = {"pay": "bank", "rent": "bank", "fly": "travel", "stay": "travel", "cook": "home", "clean": "home"}
AUDIT = ("audit", "data=files", "data.columns={text: text, label: intent}", "data.slices=[domain]", "output=seen")


def rows(num: int, seed: int) -> list[dict[str, str]]:
    """Sentences of which the last word says the intent; the teacher errs on 1 % of them."""
    generator = np.random.default_rng(seed)
    names = list(INTENTS)
    intents = [names[number % 6] for number in range(num)]
    wrong = generator.random(num) < 0.01
    return [
        {
            "text": f"{text} {intent}",
            "intent": intent,
            "domain": INTENTS[intent],
            "teacher": names[(names.index(intent) + 1) % 6] if is_wrong else intent,
        }
        for text, intent, is_wrong in zip(sentences(num, seed), intents, wrong, strict=True)
    ]


def write(directory: Path, **splits: list[dict[str, str]]) -> list[str]:
    for split, table in splits.items():
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    return [f"data.source.{split}={directory / split}.jsonl" for split in splits]


@pytest.fixture
def splits() -> dict[str, list[dict[str, str]]]:
    return {"train": rows(1200, seed=1), "validation": rows(120, seed=2), "test": rows(600, seed=3)}


def audit() -> dict[str, Any]:
    return json.loads(Path("seen/audit.json").read_text())


def table(name: str) -> list[dict[str, str]]:
    with Path(f"seen/{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_domain_without_training_data_is_named_first(potstill, splits, tmp_path):
    splits["train"] = [row for row in splits["train"] if row["domain"] != "travel"]
    outcome = potstill(*AUDIT, *write(tmp_path, **splits))
    assert outcome.code == 0, outcome.err
    assert audit()["coverage"]["empty"] == ["domain=travel", "label=fly", "label=stay"]
    first = table("cells")[0]
    assert (first["cell"], first["status"], first["rows_to_fill"]) == ("domain=travel", "empty", "400")
    assert "domain=travel empty 0 0.0 % 200 33.3 % 400" in " ".join(outcome.out.split())


@pytest.mark.slow
def test_200_test_items_in_train_are_named_and_the_repair_takes_them_from_train(potstill, splits, tmp_path):
    planted = sorted(np.random.default_rng(0).choice(600, 200, replace=False).tolist())
    splits["train"] += [splits["test"][number] for number in planted]
    files = write(tmp_path, **splits)
    assert potstill(*AUDIT, *files).code == 0
    assert sorted(int(row["item"]) for row in table("contamination")) == planted
    assert audit()["contamination"]["dirty"]["value"] == pytest.approx(1 / 3)
    assert potstill(*AUDIT, *files, "data.drop_copies=exact").code == 0
    assert table("contamination") == []
    assert audit()["splits"] == {"train": 1200, "validation": 120, "test": 600}


def test_a_tenth_of_a_teachers_labels_flipped_in_one_slice_is_named(potstill, splits, tmp_path):
    generator = np.random.default_rng(0)
    flipped = {}
    for number, row in enumerate(splits["train"]):
        if row["domain"] == "bank" and generator.random() < 0.1:
            row["teacher"] = "cook"
            flipped[number] = row["text"]
    outcome = potstill(*AUDIT, *write(tmp_path, **splits), "teacher_label=teacher")
    assert outcome.code == 0, outcome.err
    quality = audit()["teacher_quality"]
    assert quality["train"]["named"][0] == "domain=bank"
    assert not [name for name in quality["train"]["named"] if name not in ("domain=bank", "label=pay", "label=rent")]
    assert quality["test"]["named"] == []
    reviewed = {int(row["item"]): row["text"] for row in table("review") if row["split"] == "train"}
    assert flipped.items() <= reviewed.items()
    assert "domain=bank" in outcome.out


def test_one_text_under_two_labels_is_listed_without_any_teacher(potstill, splits, tmp_path):
    splits["train"].append({**splits["train"][0], "intent": "clean"})
    assert potstill(*AUDIT, *write(tmp_path, **splits)).code == 0
    [conflict] = table("conflicts")
    assert (conflict["split"], conflict["labels"]) == ("train", "clean (1), pay (1)")
    assert conflict["items"] == "0 1200"


def test_a_production_sample_takes_the_place_of_the_test_split(potstill, splits, tmp_path):
    asked = [
        {"text": row["text"], "domain": "garden" if number % 3 else "bank"} for number, row in enumerate(splits["test"])
    ]
    write(tmp_path, production=asked)
    outcome = potstill(*AUDIT, *write(tmp_path, **splits), f"production={tmp_path}/production.jsonl")
    assert outcome.code == 0, outcome.err
    assert audit()["coverage"]["empty"] == ["domain=garden"]


@pytest.mark.slow
def test_thresholds_decide_what_is_found(potstill, splits, tmp_path):
    other = splits["test"][0]["text"]
    splits["train"].append({**splits["test"][0], "text": f"{other[:20]}xxxxx xxxxx{other[31:]}"})
    splits["train"].append({**splits["test"][1], "text": " ".join([*sentences(1, 9), splits["test"][1]["text"][:30]])})
    files = write(tmp_path, **splits)
    found = []
    for options in ([], ["jaccard=0.6"], ["ngram=3"]):
        assert potstill(*AUDIT, *files, *options).code == 0
        found.append([row["item"] for row in table("contamination")])
    assert found[0] == []
    assert found[1] == ["0"]
    assert audit()["contamination"]["method"]["fields"]["prompt"]["ngram_words"] == 3


def test_bad_input_is_refused_before_anything_is_read(potstill, splits, tmp_path):
    files = write(tmp_path, **splits)
    for arguments, words in (
        ((), "potstill audit data=clinc150"),
        (("data=clinc15",), "Nearest: 'clinc150'"),
        (("run=nowhere",), "holds no config.yaml"),
        ((*AUDIT[1:], *files, "jaccard=1.5"), "no similarity"),
        ((*AUDIT[1:], *files, "ngram=0"), "no number of words"),
        ((*AUDIT[1:], *files, "production=nothing.jsonl"), "is no file"),
        ((*AUDIT[1:], *files, "teacher_label=techer"), "Nearest: 'teacher'"),
        ((*AUDIT[1:], *files, "data.drop_copies=all"), "data.drop_copies"),
        ((*AUDIT[1:], *files, "jacard=0.5"), "Nearest: 'jaccard'"),
    ):
        outcome = potstill("audit", *arguments)
        assert outcome.code == 2, arguments
        assert words in outcome.words, outcome.err
    assert not Path("seen").exists()


@pytest.fixture
def trained(potstill, saved, splits, tmp_path) -> tuple[list[str], str]:
    """A run in `run` whose training set holds 60 of the 600 test items; the files, and the teacher."""
    splits["train"] += splits["test"][:60]
    files = write(tmp_path, **splits)
    teacher = saved(labels=sorted(INTENTS), words=list(INTENTS))
    small = ["student.config.hidden_size=16", "student.config.intermediate_size=32"]
    taught = ["loss=kd", "teacher=pretrained", f"teacher.path={teacher}", "student=bert_tiny", *small]
    few = ["optim.max_epochs=1", "logger=none", "run.dir=run"]
    assert potstill("train", *AUDIT[1:-1], *files, *taught, *few).code == 0
    return files, teacher


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_an_evaluation_holds_the_audit_and_its_gate_can_say_no(potstill):
    gate = ["bar=default", "bar.contamination=0.05"]
    assert potstill("evaluate", "run=run", "logger=none", "mixes=[[1,1]]", *gate).code == 3
    evaluation = json.loads(Path("run/evaluation.json").read_text())
    [gate] = [gate for gate in evaluation["gates"] if gate["name"] == "contamination"]
    assert (gate["outcome"], gate["value"], gate["n"]) == ("fail", pytest.approx(0.1), 600)
    assert sorted(item["item"] for item in evaluation["contamination"]["items"]) == list(range(60))
    assert evaluation["contamination"]["models"]["student"]["clean"]["n"] == 540
    teacher = evaluation["models"]["teacher"]["overall"]["accuracy"]
    assert evaluation["teacher_quality"]["overall"]["value"] == pytest.approx(1 - teacher)
    assert evaluation["teacher_quality"]["num_review"] == round(600 * (1 - teacher))
    assert sum(each["n"] for each in evaluation["coverage"]["distance"]["errors"]["student"]["bins"]) == 600
    only_teacher = evaluation["models"]["student"]["overall"]["against_teacher"]["errors"]["only_teacher_right"]
    found = evaluation["found_slices"]
    assert found["n_found_on"] + found["n_tested_on"] == 600
    assert found["error_rate"] * found["n_tested_on"] <= only_teacher


@pytest.mark.slow
def test_a_runs_models_are_told_apart_on_clean_and_dirty_items(potstill, trained, splits, tmp_path):
    files, teacher = trained
    outcome = potstill("audit", "run=run", "output=seen", f"encoder={teacher}", "logger=wandb", "logger.mode=offline")
    assert outcome.code == 0, outcome.err
    [_] = Path("seen/wandb").glob("offline-run-*/*.wandb")
    found = audit()
    models = found["contamination"]["models"]
    assert {name: (each["clean"]["n"], each["dirty"]["n"]) for name, each in models.items()} == {
        "teacher": (540, 60),
        "student": (540, 60),
    }
    errors = found["coverage"]["distance"]["errors"]["teacher"]["bins"]
    assert sum(each["count"] for each in errors) == 600 - models["teacher"]["all"]["count"]
    assert found["coverage"]["distance"]["embedding"] == teacher
    assert found["teacher_quality"]["test"]["overall"]["count"] == 600 - models["teacher"]["all"]["count"]
    assert {row["split"] for row in table("review")} == {"train", "validation", "test"}
    assert found["found_slices"]["n_found_on"] + found["found_slices"]["n_tested_on"] == 600
    first = Path("seen/audit.json").read_bytes()
    assert potstill("audit", "run=run", "output=seen", f"encoder={teacher}").code == 0
    assert Path("seen/audit.json").read_bytes() == first
    other = write(tmp_path, other=rows(60, seed=8) + splits["train"][5:6])[0].partition("=")[2]
    new_test = [*AUDIT[1:-1], *files[:2], f"data.source.test={other}"]
    assert potstill("audit", "run=run", "output=seen", *new_test).code == 0
    [item] = [row for row in table("contamination") if row["split"] == "transfer"] or table("contamination")
    assert item["item"] == "60"
    assert audit()["splits"]["transfer"] == 1260
