"""Options of sentence encoders have an effect, as those of test_effects.py do."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytorch_lightning as pl

from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate

WORDS = ("eel", "cat", "dog", "owl")
TAUGHT = (
    *("student=bert_tiny", "student.config.hidden_size=16", "student.config.intermediate_size=32"),
    *("teacher=pretrained", "teacher.path={model}", "loss=embedding_mse"),
)
SINGLE = ("data=files", "data.source.train={data}", "data.task=embedding", *TAUGHT)
PAIRS = ("data=pairs", "data.source.train={data}", *TAUGHT)
EFFECTS = {
    "teacher.pooling=cls": SINGLE,
    "teacher.normalise=true": SINGLE,
    "student.pooling=last": SINGLE,
    "student.normalise=true": SINGLE,
    "data.pair_by_label=true": SINGLE,
    "data.columns.anchor=other": PAIRS,
    "data.columns.positive=other": PAIRS,
    "data.columns.negative=other": PAIRS,
    "data.columns.score=score": PAIRS,
}

_HERE = ("config/test_embedding_effects.py", "test_an_option_of_sentence_encoders_changes_what_is_built")
OF_ENCODERS = {change.partition("=")[0]: _HERE for change in EFFECTS}


@pytest.fixture(scope="module")
def paths(saved, tmp_path_factory) -> dict[str, str]:
    file = tmp_path_factory.mktemp("data") / "train.jsonl"
    texts = [" ".join(WORDS[(n >> shift) % 4] for shift in range(0, 2 * (2 + n % 4), 2)) for n in range(120)]
    rows = [
        {
            "text": text,
            "anchor": text,
            "positive": f"{text} cat",
            "other": f"owl {text}",
            "score": n / 7,
            "label": n % 2,
        }
        for n, text in enumerate(texts)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return {"model": saved(words=WORDS, initializer_range=0.3), "data": str(file)}


def seen(overrides: list[str]) -> list[Any]:
    """The first batch, and what either model makes of it."""
    config = typed(composed("train", overrides), TrainConfig)
    validate(config)
    pl.seed_everything(0, verbose=False)
    objective = assemble_objective(config)
    source = assemble_source(config)
    models = assemble_models(config, source, objective)
    assert models.teacher
    batch = next(iter(source.data.train_dataloader()))
    teacher = models.teacher.signal(batch, objective.needs_teacher).embeddings
    assert teacher is not None
    student = models.student.config
    return [batch.keys, batch.labels.tolist(), teacher.tolist(), student.sentence_pooling, student.sentence_normalise]


@pytest.mark.slow
@pytest.mark.parametrize("change", EFFECTS)
def test_an_option_of_sentence_encoders_changes_what_is_built(change: str, paths: dict[str, str]) -> None:
    base = [text.format(**paths) for text in EFFECTS[change]]
    before = seen(base)
    assert before == seen(base), "what is observed must not change by itself"
    assert before != seen([*base, change])
