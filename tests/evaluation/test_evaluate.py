"""The whole structure of an evaluation, from models whose answers are known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from potstill.data.batch import IGNORE
from potstill.evaluation.evaluate import EvaluationSet, ModelUnderTest, evaluate

from .echo import CAUSAL, IMAGES, Echo, answers, language_model, texts

LABELS = [0, 1, 2, 0]
DATA = EvaluationSet(
    [answers([0, 1, 2], LABELS[:3]), answers([1], LABELS[3:])], "a1b2", {"domain": ["bank", "bank", "home", "home"]}
)


def echoes() -> dict[str, ModelUnderTest]:
    """The teacher answers 0 1 2 1, the last wrongly; so does the student; the baseline is right on the last alone."""
    return {
        "teacher": ModelUnderTest(Echo(), "teachers/echo"),
        "student": ModelUnderTest(Echo(), "runs/a/student"),
        "baseline": ModelUnderTest(Echo(rotation=2), "runs/b/student"),
    }


@pytest.fixture(scope="module")
def evaluation() -> dict[str, Any]:
    return evaluate(echoes(), DATA, IMAGES)


def test_every_model_is_measured_overall_and_per_slice(evaluation: dict[str, Any]) -> None:
    models = evaluation["models"]
    assert {name: model["overall"]["accuracy"] for name, model in models.items()} == {
        "teacher": 0.75,
        "student": 0.75,
        "baseline": 0.25,
    }
    assert {name: (group["n"], group["accuracy"]) for name, group in models["student"]["slices"].items()} == {
        "domain=bank": (2, 1.0),
        "domain=home": (2, 0.5),
    }
    assert models["student"]["path"] == "runs/a/student"


def test_agreement_and_retention_are_relative_to_the_teacher_on_the_same_slice(evaluation: dict[str, Any]) -> None:
    student, baseline = evaluation["models"]["student"], evaluation["models"]["baseline"]
    kept = [model["overall"]["against_teacher"] for model in (student, baseline)]
    assert [(each["agreement"], each["retention"]) for each in kept] == [(1.0, 1.0), (0.0, pytest.approx(1 / 3))]
    assert baseline["slices"]["domain=home"]["against_teacher"]["retention"] == 1.0
    assert evaluation["models"]["teacher"]["overall"]["against_teacher"] is None


def test_the_difference_of_student_and_baseline_has_an_interval(evaluation: dict[str, Any]) -> None:
    difference = evaluation["differences"]["student-baseline"]
    assert (difference["metric"], difference["value"], difference["n"]) == ("accuracy", 0.5, 4)
    assert difference["interval"][0] < 0.5 <= difference["interval"][1]


def test_what_was_evaluated_is_named(evaluation: dict[str, Any]) -> None:
    said = {name: evaluation["data"][name] for name in ("fingerprint", "split", "n", "num_labelled")}
    assert said == {"fingerprint": "a1b2", "split": "test", "n": 4, "num_labelled": 4}
    assert (evaluation["task"], evaluation["metric"]) == ("image_classification", "accuracy")


def test_the_order_of_keys_does_not_follow_chance(evaluation: dict[str, Any]) -> None:
    assert json.dumps(evaluation) == json.dumps(evaluate(echoes(), DATA, IMAGES))


def test_what_cannot_be_measured_is_null_and_never_nan() -> None:
    data = EvaluationSet([answers([0, 1], [IGNORE, 0])], "", {"domain": ["bank", "home"]})
    found = evaluate(echoes(), data, IMAGES)
    student = found["models"]["student"]["slices"]
    json.dumps(found, allow_nan=False)
    assert (student["domain=bank"]["num_labelled"], student["domain=bank"]["accuracy"]) == (0, None)
    assert student["domain=bank"]["against_teacher"]["agreement"] == 1.0, "agreement needs no label"
    assert student["domain=home"]["against_teacher"]["retention"] is None, "the teacher is never right here"


def test_a_slice_without_rows_is_listed_empty() -> None:
    data = EvaluationSet([texts([3, 4, 5], [6])], "", {"package": ["os", "json"]}, scored_bytes=[9, 0])
    found = evaluate({"student": ModelUnderTest(language_model())}, data, CAUSAL)
    empty = found["models"]["student"]["slices"]["package=json"]
    assert {empty[name] for name in ("n", "num_labelled", "num_items", "num_nonfinite")} == {0}
    assert empty["is_too_small"]
    measured = [*(empty[name] for name in ("perplexity", "bits_per_byte", "accuracy")), *empty["interval"]]
    assert set(measured) == {None}
    assert empty["calibration"]["ece"] is None


def test_without_teacher_and_baseline_nothing_is_compared() -> None:
    found = evaluate({"student": echoes()["student"]}, DATA, IMAGES)
    assert found["models"]["student"]["overall"]["against_teacher"] is None
    assert found["differences"] == {}


def test_bits_of_the_slices_of_a_language_model_add_up_to_the_whole() -> None:
    data = EvaluationSet([texts([3, 4, 5, 6], [7, 8])], "", {"package": ["os", "json"]}, [30, 11])
    found = evaluate({"student": ModelUnderTest(language_model())}, data, CAUSAL)["models"]["student"]
    slices = found["slices"]
    bits = [slices["package=os"]["bits_per_byte"] * 30, slices["package=json"]["bits_per_byte"] * 11]
    assert found["overall"]["bits_per_byte"] * 41 == pytest.approx(sum(bits))
    assert [slices["package=os"]["n"], slices["package=json"]["n"], found["overall"]["n"]] == [3, 1, 4]


def test_what_a_language_model_retains_is_the_teachers_perplexity_over_its_own() -> None:
    data = EvaluationSet([texts([3, 4, 5, 6], [7, 8])], "", {}, [30, 11])
    models = {"teacher": ModelUnderTest(language_model(0)), "student": ModelUnderTest(language_model(1))}
    found = evaluate(models, data, CAUSAL)["models"]
    teacher, student = found["teacher"]["overall"], found["student"]["overall"]
    expected = teacher["perplexity"] / student["perplexity"]
    assert student["against_teacher"]["retention"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "data",
    [
        EvaluationSet(DATA.batches, "", {"domain": ["bank", "home"]}),
        EvaluationSet(DATA.batches, "", {}, scored_bytes=[1]),
        EvaluationSet((batch for batch in DATA.batches), ""),
    ],
    ids=["slice values", "bytes", "generator"],
)
def test_columns_that_do_not_fit_the_examples_are_refused(data: EvaluationSet) -> None:
    with pytest.raises(ValueError, match=r"has \d values for 4 examples"):
        evaluate(echoes(), data, IMAGES)
