"""Sentence encoders from the command line: trained, resumed, evaluated, exported; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .interrupted import assert_same_run, cut_off

WORDS = ("eel", "cat", "dog", "owl")
STUDENT = (
    *("student=bert_tiny", "student.config.hidden_size=16", "student.config.intermediate_size=32"),
    *("student.tokenizer={teacher}", "teacher=pretrained", "teacher.path={teacher}", "logger=csv", "log_every=1"),
)
LABELS = (*("data=files", "data.source.train=labels.jsonl", "data.task=embedding"), *STUDENT)
PAIRS = (*("data=pairs", "data.source.train=pairs.jsonl"), *STUDENT)
SMALL = ("data.batch_size=16", "optim.max_epochs=2", "validate_every=4", "data.test_fraction=0.4")


@pytest.fixture(scope="module")
def teacher(saved) -> str:
    return saved(words=WORDS, initializer_range=0.5)


@pytest.fixture
def command(potstill, tmp_path: Path, teacher: str):
    """The command line, in a folder with texts of four labels, and with pairs, triplets and scored pairs."""
    texts = [" ".join(WORDS[(n >> shift) % 4] for shift in range(0, 2 * (2 + n % 5), 2)) for n in range(160)]
    labels = [{"text": text, "label": WORDS[n % 4], "side": "ab"[n % 2]} for n, text in enumerate(texts)]
    pairs = [
        {"anchor": text, "positive": f"{text} cat", "negative": [texts[-n], "owl"], "score": (n % 7) / 3}
        for n, text in enumerate(texts)
    ]
    for name, rows in (("labels", labels), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return lambda *given: potstill(*(str(text).replace("{teacher}", teacher) for text in given))


def trained(command, directory: str, *options: str) -> Any:
    outcome = command("train", *options, *SMALL, f"run.dir={directory}")
    assert outcome.code == 0, outcome
    return json.loads(Path(directory, "manifest.json").read_text())["metrics"]


@pytest.mark.slow
def test_teacher_student_and_baseline_are_compared_by_what_they_find(command):
    sliced = (*LABELS, "data.slices=[side]")
    metrics = trained(command, "student", *sliced, "loss=embedding_mse", "teacher.remember=true")
    assert metrics["val/loss"] == pytest.approx(1.0 - metrics["val/ndcg_at_10"])
    assert 0.0 < metrics["val/recall_at_10"] <= 1.0
    trained(command, "baseline", *sliced, "loss=contrastive", "data.pair_by_label=true")
    outcome = command("evaluate", "run=student", "baseline=baseline", "bar=none", "logger=none")
    assert outcome.code == 0, outcome
    assert all(label in outcome.out for label in ("nDCG@10", "recall@10", "accuracy@1", "ndcg_at_10 by slice"))
    evaluation = json.loads(Path("student/evaluation.json").read_text())
    assert [evaluation[name] for name in ("task", "metric", "higher_is_better")] == ["embedding", "ndcg_at_10", True]
    models = evaluation["models"]
    assert list(models) == ["teacher", "student", "baseline"]
    number = evaluation["data"]["n"]
    for model in models.values():
        slices = model["slices"]
        assert sum(each["n"] for each in slices.values()) == model["overall"]["n"] == number
        mean = sum(each["n"] * each["ndcg_at_10"] for each in slices.values()) / number
        assert model["overall"]["ndcg_at_10"] == pytest.approx(mean)
    student, baseline = models["student"]["overall"], models["baseline"]["overall"]
    retained = student["against_teacher"]["retention"]
    assert retained == pytest.approx(student["ndcg_at_10"] / models["teacher"]["overall"]["ndcg_at_10"])
    difference = evaluation["differences"]["student-baseline"]
    assert difference["value"] == pytest.approx(student["ndcg_at_10"] - baseline["ndcg_at_10"])
    assert difference["n"] == number
    weights = torch.load("student/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    projector = [name for name in weights if not name.startswith("student.")]
    assert projector == [f"objective.terms.embedding_mse.projection.{name}" for name in ("weight", "bias")]
    assert json.loads(Path("student/student/config.json").read_text())["hidden_size"] == 16, "the student's own width"


@pytest.mark.slow
def test_scored_pairs_are_compared_by_their_order(command):
    options = (*PAIRS, "data.columns.score=score", "loss=similarity_kl")
    metrics = trained(command, "student", *options)
    assert metrics["val/loss"] == pytest.approx(1.0 - metrics["val/spearman"])
    trained(command, "baseline", *options, "seed=1", "loss=embedding_mse")
    assert command("evaluate", "run=student", "baseline=baseline", "bar=none", "logger=none").code == 0
    evaluation = json.loads(Path("student/evaluation.json").read_text())
    assert evaluation["metric"] == "spearman"
    student, baseline = (evaluation["models"][name]["overall"]["spearman"] for name in ("student", "baseline"))
    difference = evaluation["differences"]["student-baseline"]
    assert difference["value"] == pytest.approx(student - baseline)
    assert difference["interval"][0] < difference["value"] < difference["interval"][1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", ["margin_mse", "listwise_kl", "embedding_cosine", "contrastive", "info_nce", "rkd_embedding"]
)
def test_triplets_train_with_every_preset(loss: str, command):
    metrics = trained(command, "run", *PAIRS, "data.columns.negative=negative", f"loss={loss}")
    assert np.isfinite(metrics["val/ndcg_at_10"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("loss=contrastive", "data.pair_by_label=true", "data.labels_per_class=12"),
        ("loss=embedding_mse", "teacher.remember=true"),
    ],
    ids=["pairs", "remembered embeddings"],
)
def test_a_run_cut_off_ends_as_if_it_had_not_been(options: tuple[str, ...], command):
    given = (*LABELS, *options, *SMALL, "optim.max_epochs=null", "optim.max_steps=10")
    assert command("train", *given, "run.dir=whole").code == 0
    for step in (5, 9):
        with cut_off(step):
            command("train", *given, f"run.dir=cut_{step}")
        assert command("train", "--resume", f"cut_{step}").code == 0
        assert_same_run(Path(f"cut_{step}"), Path("whole"))


REFUSED = {
    "logits of an encoder": ((*LABELS, "loss=kd"), ["loss.term='ce'", "compares logits", "data.task=embedding"]),
    "embeddings of a classifier": (
        (*LABELS, "data.task=text_classification", "loss=embedding_mse"),
        ["loss.term='embedding_mse'", "compares embeddings"],
    ),
    "contrast without pairs": (
        (*LABELS, "loss=contrastive"),
        ["loss.term.contrastive", "an anchor and a positive", "data.pair_by_label=true"],
    ),
    "margins without negatives": ((*PAIRS, "loss=margin_mse"), ["loss.term.margin_mse", "data gives 2 text(s)"]),
    "micro-batches of coupled rows": (
        (*LABELS, "loss=similarity_kl", "hardware.micro_batch_examples=4"),
        ["hardware.micro_batch_examples=4", "loss.term.similarity_kl compares"],
    ),
    "an unknown pooling": ((*LABELS, "loss=embedding_mse", "student.pooling=max"), ["student.pooling='max'", "mean"]),
    "pooling of a classifier": (
        (*LABELS, "data.task=text_classification", "loss=kd", "student.pooling=cls"),
        ["student.pooling='cls'", "has no effect with data.task=text_classification"],
    ),
    "pairs without labels": (
        (*PAIRS, "loss=embedding_mse", "data.pair_by_label=true"),
        ["data.pair_by_label=True", "pairs single texts by their label"],
    ),
    "pairs remembered": (
        (*LABELS, "loss=embedding_mse", "data.pair_by_label=true", "teacher.remember=true"),
        ["teacher.remember=True", "new pairs for every epoch"],
    ),
    "a missing column": (
        (*PAIRS, "loss=embedding_mse", "data.columns.positive=answer"),
        ["data.columns.positive='answer'", "is not a column"],
    ),
    "contrast of scored pairs": (
        (*PAIRS, "data.columns.score=score", "loss=contrastive"),
        ["pairs with a score may be unlike"],
    ),
    "an image model": (
        (*LABELS, "loss=embedding_mse", "student=vit_digits_tiny"),
        ["student.config.model_type='vit'", "does no embedding; it does image_classification."],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused(case: str, command):
    options, words = REFUSED[case]
    outcome = command("train", *options, "run.dir=run")
    assert outcome.code == 2, outcome
    assert [word for word in words if word not in outcome.words] == [], outcome.words
    assert not Path("run").exists()
