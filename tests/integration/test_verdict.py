"""From a trained run to a verdict: exit codes, the same bytes again, the ledger, further columns."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from potstill.data.manifest import FILE

RUN = ("run=student", "baseline=baseline", "logger=none", "mixes=[]")


@pytest.fixture
def runs(potstill):
    """Student and baseline of one batch each, a teacher for them."""
    for name, options in (("teacher", ["experiment=digits_teacher"]), ("baseline", ["loss=ce"]), ("student", [])):
        taught = (
            [] if name == "teacher" else ["experiment=digits", "teacher=pretrained", "teacher.path=teacher/student"]
        )
        outcome = potstill("train", *taught, *options, "debug=one_batch", f"run.dir={name}")
        assert outcome.code == 0, outcome.err
    return potstill


def evaluation(directory: str = "student") -> dict[str, Any]:
    return json.loads(Path(directory, "evaluation.json").read_text())


@pytest.mark.slow
def test_an_evaluation_says_no_says_it_again_and_counts_both(runs):
    first = runs("evaluate", *RUN, "bar=digits")
    assert first.code == 3, first.err
    lines = first.out.splitlines()
    assert lines[0].startswith("Verdict: DO_NOT_SHIP"), "the verdict comes first"
    before, items = evaluation(), Path("student/items.jsonl").read_bytes()
    assert runs("evaluate", *RUN, "bar=digits").code == 3
    after = evaluation()
    assert [before.pop("measured")["openings"]["count"], after.pop("measured")["openings"]["count"]] == [1, 2]
    assert json.dumps(before).encode() == json.dumps(after).encode(), (
        "all but what was measured is the same, byte by byte"
    )
    assert Path("student/items.jsonl").read_bytes() == items
    assert len(Path("evaluations.jsonl").read_text().splitlines()) == 2

    none = runs("evaluate", *RUN, "bar=none", "output=free")
    assert (none.code, evaluation("free")["verdict"]["outcome"]) == (0, None)
    too_few = runs("evaluate", *RUN, "bar=none", "bar.name=mine", "bar.min_items=1000", "output=open")
    assert (too_few.code, evaluation("open")["verdict"]["outcome"]) == (4, "NOT_ENOUGH_EVIDENCE")

    more = ["+models.again=baseline", "seeds=[free]", "mixes=[[2,1]]"]
    assert runs("evaluate", *RUN, "bar=none", *more, "output=more").code == 0
    found = evaluation("more")
    assert list(found["models"]) == ["teacher", "student", "baseline", "majority", "again"]
    assert found["models"]["again"]["overall"] == found["models"]["baseline"]["overall"]
    assert found["measured"]["models"]["student"]["mixes"][0]["batch"] == 2
    assert [run["path"] for run in found["seeds"]["runs"]] == ["student/student", "free"]
    assert found["seeds"]["student"]["n"] == 2
    assert list(evaluation("free")["models"]) == ["teacher", "student", "baseline", "majority"]

    frozen = json.loads(Path("student", FILE).read_text())
    frozen["splits"]["test"]["items"][0] = "0" * 16
    Path("student", FILE).write_text(json.dumps(frozen))
    refused = runs("evaluate", *RUN, "bar=none")
    assert refused.code == 2
    assert "1 of its items are gone and 1 are new" in refused.words
    assert len(Path("evaluations.jsonl").read_text().splitlines()) == 5, "what is refused opens nothing"


@pytest.mark.slow
def test_what_cannot_be_evaluated_is_refused_before_the_test_set_is_opened(runs):
    refusals = {
        "mixes=[[0,1]]": "mixes=[0, 1]",
        "seeds=[nowhere]": "holds no evaluation.json",
        "+models.teacher=baseline": "has the name of a column",
        "+bar.slices.a={_target_: potstill.evaluation.declared.regex, pattern: '('}": "is no pattern",
    }
    for option, said in refusals.items():
        outcome = runs("evaluate", *RUN, "bar=none", option)
        assert outcome.code == 2
        assert said in outcome.words
        assert not Path("evaluations.jsonl").exists()


@pytest.mark.slow
def test_the_student_in_eight_bits_is_a_column(runs):
    """Where torchao is installed; elsewhere the refusal says how to get it."""
    outcome = runs("evaluate", *RUN, "bar=none", "quantised=true")
    if importlib.util.find_spec("torchao") is None:
        assert outcome.code == 2
        assert "pip install 'potstill[quantised]'" in outcome.words
        return
    assert outcome.code == 0, outcome.err
    models = evaluation()["models"]
    assert models["quantised"]["size"]["model_bytes"] < models["student"]["size"]["model_bytes"]
