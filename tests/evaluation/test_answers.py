"""Generated answers, judged as classes are: paired tests, intervals, gates and copied errors rest on them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from potstill.evaluation.answers import Generated, Written, judge_answers
from potstill.evaluation.bar import BarConfig
from potstill.evaluation.between_runs import scores_of
from potstill.evaluation.compare import difference_interval
from potstill.evaluation.evaluate import EvaluationSet, Judged, ModelUnderTest, judge
from potstill.evaluation.statistics import mcnemar, paired_shares, wilson

from .echo import CAUSAL, language_model, texts

REFERENCES = ["so #### 4", "so #### 1,000", "so #### 7", "so #### 2"]
PROMPTED = np.array([0, 1, 3, 4])  # of five examples; the third has no prompt that was chosen
WRITTEN = {
    "teacher": ["#### 4", "#### 1000", "#### 5", "#### 2"],
    "student": ["it is #### 4", "none", "#### 5", "#### 3"],
    "baseline": ["none", "none", "none", "#### 2"],
}


def generated(judged_by: str = "number", metric: str | None = "numeric_match") -> Generated:
    written = {
        name: Written(said, [not said[-1].isdigit() for said in WRITTEN[name]]) for name, said in WRITTEN.items()
    }
    options: dict[str, Any] = {"judged_by": judged_by, "is_valid": lambda text: "####" in text}
    answers = judge_answers(written, REFERENCES, PROMPTED, 5, **options)
    return Generated(answers, metric, {"metric": metric, "n": 4})


def judged(made: Generated | None, **bar: Any) -> Judged:
    batches = [texts(*([3, 4, number] for number in range(5, 10)))]
    columns = {"kind": ["a", "a", "a", "b", "b"]}
    data = EvaluationSet(batches, "", columns, [3] * 5, items=[f"i{number}" for number in range(5)])
    models = {name: ModelUnderTest(language_model(seed)) for seed, name in enumerate(WRITTEN)}
    return judge(models, data, CAUSAL, BarConfig(name="mine", min_items=1, min_slice_items=1, **bar), generated=made)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return judged(generated(), quality=0.9, margin=0.1, baseline=True, slice_margin=0.1).report


def test_answers_are_ranked_tested_and_gated_as_classes_are(report):
    overall = {name: model["overall"] for name, model in report["models"].items()}
    assert report["metric"] == "numeric_match"
    assert {name: each["numeric_match"] for name, each in overall.items()} == {
        "teacher": 0.75,
        "student": 0.25,
        "baseline": 0.25,
    }
    expected = wilson(1, 4)
    assert overall["student"]["interval"] == [expected.low, expected.high]
    assert (overall["student"]["num_items"], report["data"]["num_labelled"]) == (4, 4)

    pair, right = report["differences"]["student-teacher"], [np.array([1, 0, 0, 0]) > 0, np.array([1, 1, 0, 1]) > 0]
    interval = paired_shares(*right)
    assert (pair["metric"], pair["value"], pair["n"]) == ("numeric_match", -0.5, 4)
    assert pair["interval"] == [interval.low, interval.high]
    assert (pair["p_value"], pair["discordant"]) == mcnemar(*right)
    assert {gate["name"]: gate["n"] for gate in report["gates"] if gate["name"] in ("quality", "teacher")} == {
        "quality": 4,
        "teacher": 4,
    }
    assert next(gate for gate in report["gates"] if gate["name"] == "quality")["outcome"] == "fail"


def test_slices_of_answers_hold_the_answers_to_their_own_prompts(report):
    slices = report["models"]["teacher"]["slices"]
    assert [(slices[name]["numeric_match"], slices[name]["num_items"]) for name in ("kind=a", "kind=b")] == [
        (1.0, 2),
        (0.5, 2),
    ]
    assert slices["kind=b"]["generation"]["n"] == 2


def test_a_copied_error_is_the_same_wrong_answer_and_silence_is_none(report):
    """The teacher is wrong once, with 5; the student says 5 as well. The baseline says nothing."""
    student, baseline = (report["models"][name]["overall"]["against_teacher"] for name in ("student", "baseline"))
    assert (student["copied_errors"]["value"], student["copied_errors"]["n"]) == (1.0, 1)
    assert student["errors"] == {
        "both_right": 1,
        "only_teacher_right": 2,
        "only_model_right": 0,
        "both_wrong_alike": 1,
        "both_wrong_apart": 0,
    }
    assert baseline["copied_errors"]["value"] == 0.0
    assert (student["retention"], student["answer_agreement"]) == (pytest.approx(1 / 3), 0.5)


def test_two_models_that_say_nothing_readable_do_not_agree():
    options: dict[str, Any] = {"judged_by": "number", "is_valid": None}
    written = {name: Written(["none"], [False]) for name in ("teacher", "student")}
    found = judge_answers(written, ["#### 1"], np.array([0]), 1, **options)
    assert found["teacher"].scores.top1 != found["student"].scores.top1


def test_a_reference_that_cannot_be_read_is_not_judged():
    found = judge_answers(
        {"student": Written(["#### 1", "#### 2"], [False] * 2)},
        ["#### 1", "none"],
        np.array([0, 1]),
        2,
        judged_by="number",
        is_valid=None,
    )
    assert found["student"].scores.labelled.tolist() == [True, False]


def test_without_a_metric_of_answers_they_are_described_and_the_rest_stays_as_it_was():
    plain, described = judged(None).report, judged(generated("text", None)).report
    student = described["models"]["student"]["overall"]
    assert described["metric"] == "perplexity"
    assert {key: value for key, value in student.items() if key != "generation"} == {
        key: value for key, value in plain["models"]["student"]["overall"].items() if key != "generation"
    }
    assert (student["generation"]["numeric_match"], student["generation"]["format_valid"]) == (0.25, 0.75)
    expected = wilson(1, 4)
    assert student["generation"]["intervals"]["numeric_match"] == [expected.low, expected.high]


def test_a_model_that_wrote_nothing_has_no_value_and_passes_no_gate():
    made = generated()
    alone = Generated({"student": made.answers["student"]}, made.metric, made.about)
    report = judged(alone, margin=0.1, retention=0.9).report
    json.dumps(report, allow_nan=False)
    assert report["models"]["teacher"]["overall"]["numeric_match"] is None
    assert report["models"]["student"]["overall"]["against_teacher"]["retention"] is None
    outcomes = {gate["name"]: gate["outcome"] for gate in report["gates"]}
    assert (outcomes["teacher"], outcomes["retention"]) == ("not_enough_evidence", "not_enough_evidence")


def test_answers_on_record_give_the_same_paired_difference_again():
    found = judged(generated())
    again = [scores_of(found.items, name, "numeric_match") for name in ("student", "teacher")]
    pair, recorded = difference_interval(again[0], again[1], "numeric_match"), found.report["differences"]
    assert pair.value == recorded["student-teacher"]["value"]
    assert [pair.low, pair.high] == recorded["student-teacher"]["interval"]
    assert found.items[2]["models"]["student"]["generated"] is None
    assert found.items[3]["models"]["student"]["generated"] == {"rows": 1, "right": 0, "text": "#### 5"}
    assert not math.isnan(pair.low)
