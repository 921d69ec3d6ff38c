"""Every limit of a bar decides: met it passes, missed it fails, unmeasured it is never green."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest

from potstill.evaluation.bar import BarConfig
from potstill.evaluation.evaluate import EvaluationSet, ModelUnderTest, judge
from potstill.evaluation.gates import gates
from potstill.evaluation.verdict import verdict

from .echo import IMAGES, Echo, answers

NUM_ITEMS = 300
LABELS = [n % 3 for n in range(NUM_ITEMS)]
DECIDED_ELSEWHERE = {
    "name": "asks",
    "alpha": "test_holm_keeps_one_of_many_slices_from_failing_by_chance",
    "min_slice_items": "test_a_slice_that_is_too_small_is_never_green",
    "max_openings": "tests/commands/test_frozen.py",
    "slices": "tests/commands/test_frozen.py",
    "prices": "tests/evaluation/test_economics.py",
}


class Wrong(Echo):
    """`Echo`, except that the first `num_wrong` items it sees are answered one class too high."""

    def __init__(self, num_wrong: int) -> None:
        super().__init__()
        self.num_wrong = num_wrong

    def forward(self, pixel_values):
        output = super().forward(pixel_values)
        output.logits[: self.num_wrong] = output.logits[: self.num_wrong].roll(1, dims=1)
        return output


def report_of(**num_wrong: int) -> dict[str, Any]:
    """Items of the first half lie in slice `half=first`; a model is wrong on the first so many."""
    halves = ["first" if n < NUM_ITEMS // 2 else "second" for n in range(NUM_ITEMS)]
    data = EvaluationSet([answers(LABELS, LABELS)], "", {"half": halves})
    models = {name: ModelUnderTest(Wrong(number)) for name, number in num_wrong.items()}
    report = judge(models, data, IMAGES, BarConfig()).report
    rates = {"name": "x", "conditions": [], "n": 60, "p_value": 0.01, "p_holm": 0.01}
    report["found_slices"] = {
        "error_rate": 0.2,
        "n_tested_on": 150,
        "slices": [{**rates, "error_rate": 0.5, "interval": [0.4, 0.6]}],
    }
    clean = {"value": 0.8, "interval": [0.75, 0.85], "n": 250}
    report["contamination"] = {"n": NUM_ITEMS, "num_dirty": 50, "models": {"student": {"clean": clean}}}
    report["seeds"] = {"runs": [{"seed": 0}, {"seed": 1}], "difference": None}
    return report


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Accuracies 0.9, 0.8, 0.5; the student is wrong on 60 items of the first half, of which the teacher is on 30."""
    return report_of(teacher=30, student=60, baseline=150, majority=200)


def only(report: dict[str, Any], name: str, **asked: Any) -> dict[str, Any]:
    bar = BarConfig(name="test", **asked)
    [found] = [gate for gate in gates(report, bar) if gate["name"] == name]
    return found


@pytest.mark.parametrize(
    ("name", "limit", "met", "missed"),
    [
        ("quality", "quality", 0.7, 0.95),
        ("retention", "retention", 0.8, 0.97),
        ("teacher", "margin", 0.2, 0.01),
        ("worst_slice", "slice_quality", 0.4, 0.9),
        ("slices", "slice_margin", 0.4, 0.01),
        ("copied_errors", "copied_errors", 1.0, 0.1),
        ("calibration", "ece", 0.5, 0.01),
        ("size", "parameters", 1, 0),
        ("size", "model_bytes", 4, 3),
        ("contamination", "contamination", 0.2, 0.1),
        ("found_slices", "found_slices", 0.7, 0.3),
        ("test_items", "min_items", 300, None),
        ("seeds", "min_seeds", 2, None),
    ],
)
def test_a_limit_decides(name: str, limit: str, met: float, missed: float | None, report: dict[str, Any]) -> None:
    assert only(report, name, **{limit: met})["outcome"] == "pass"
    if missed is None:  # too few of something is no fault of the student's
        assert only(report, name, **{limit: met + 1})["outcome"] == "not_enough_evidence"
        return
    failed = only(report, name, **{limit: missed})
    assert failed["outcome"] == "fail"
    assert failed["threshold"] in (missed, -missed)
    assert (failed["n"] > 0, len(failed["interval"])) == (True, 2)


def test_every_field_of_a_bar_decides_something() -> None:
    cases = test_a_limit_decides.pytestmark[0].args[1]  # type: ignore[attr-defined]
    known = {case[1] for case in cases} | {"baseline", "majority", "clean"} | DECIDED_ELSEWHERE.keys()
    assert {each.name for each in dataclasses.fields(BarConfig)} == known


def test_the_student_has_to_beat_the_others_where_that_is_asked(report: dict[str, Any]) -> None:
    for name in ("baseline", "majority"):
        assert only(report, name, **{name: True})["outcome"] == "pass"
        swapped = report_of(student=150, **{name: 60})
        assert only(swapped, name, **{name: True})["outcome"] == "fail"
        assert not [gate for gate in gates(report, BarConfig(name="test")) if gate["name"] == name]


def test_what_is_clean_alone_has_to_be_good_enough(report: dict[str, Any]) -> None:
    assert only(report, "clean", quality=0.7, clean=True)["outcome"] == "pass"
    assert only(report, "clean", quality=0.9, clean=True)["outcome"] == "fail"


def test_an_interval_that_holds_the_limit_is_no_evidence(report: dict[str, Any]) -> None:
    for asked in (
        {"quality": 0.8},
        {"margin": 0.1},
        {"ece": report["models"]["student"]["overall"]["calibration"]["ece"]},
    ):
        [open_gate] = [gate for gate in gates(report, BarConfig(name="test", **asked)) if gate["outcome"] != "pass"]
        assert open_gate["outcome"] == "not_enough_evidence"


@pytest.mark.parametrize(
    ("block", "asked"),
    [
        ("contamination", {"contamination": 1.0}),
        ("contamination", {"quality": 0.1, "clean": True}),
        ("found_slices", {"found_slices": 1.0}),
        ("seeds", {"min_seeds": 2}),
    ],
)
def test_what_nobody_looked_for_is_not_absent(block: str, asked: dict[str, Any], report: dict[str, Any]) -> None:
    without = {**report, block: None}
    outcomes = [gate["outcome"] for gate in gates(without, BarConfig(name="test", **asked))]
    assert outcomes[0] == "not_enough_evidence"
    assert "fail" not in outcomes


def test_the_worst_slice_is_named_first(report: dict[str, Any]) -> None:
    failed = only(report, "slices", slice_margin=0.1)
    assert (failed["outcome"], failed["slice"]) == ("fail", "half=first")
    assert [each["outcome"] for each in failed["details"]] == ["fail", "pass"]
    assert "half=first" in failed["says"]
    assert "half=second" not in failed["says"]


def test_a_slice_that_is_too_small_is_never_green(report: dict[str, Any]) -> None:
    small = copy.deepcopy(report)
    small["slices"]["half=second"]["is_too_small"] = True
    found = only(small, "slices", slice_margin=0.9)
    assert found["outcome"] == "not_enough_evidence"
    assert "too small to say: half=second" in found["says"]
    assert only(report, "slices", slice_margin=0.9)["outcome"] == "pass"


def test_holm_keeps_one_of_many_slices_from_failing_by_chance(report: dict[str, Any]) -> None:
    """Twenty equal slices, one a little worse: alone it would fail, among twenty it is what chance does."""
    many = copy.deepcopy(report)
    good = {"value": 0.0, "interval": [-0.04, 0.04], "n": 100, "p_value": 1.0, "p_holm": 1.0}
    unlucky = {"value": -0.1, "interval": [-0.18, -0.02], "n": 100, "p_value": 0.02, "p_holm": 0.4}
    names = [f"s={number}" for number in range(20)]
    many["slices"] = {name: {"is_too_small": False} for name in names}
    many["differences"]["student-teacher"]["slices"] = dict.fromkeys(names, good) | {"s=7": unlucky}
    assert only(many, "slices", slice_margin=0.01)["details"][0]["outcome"] != "fail"
    many["differences"]["student-teacher"]["slices"] = {"s=7": unlucky}
    assert only(many, "slices", slice_margin=0.01)["outcome"] == "fail"
    assert only(many, "slices", slice_margin=0.01, alpha=0.001)["outcome"] == "not_enough_evidence"


def test_of_perplexities_less_is_better() -> None:
    report = {
        "metric": "perplexity",
        "higher_is_better": False,
        "slices": {},
        "task": "causal_lm",
        "bar": {"alpha": 0.05},
    }
    report |= {"data": {"num_labelled": 300}, "contamination": None, "found_slices": None, "seeds": None}
    overall = {"perplexity": 20.0, "interval": [19.0, 21.0], "num_items": 300, "num_nonfinite": 0, "n": 900}
    report["models"] = {"student": {"overall": {**overall, "against_teacher": None}}}
    pair = {"value": -2.0, "interval": [-3.0, -1.0], "n": 300, "p_value": None}
    report["differences"] = {
        "student-baseline": pair,
        "student-teacher": {**pair, "value": 2.0, "interval": [1.0, 3.0]},
    }
    assert only(report, "quality", quality=22.0)["outcome"] == "pass"
    assert only(report, "quality", quality=18.0)["outcome"] == "fail"
    assert only(report, "baseline", baseline=True)["outcome"] == "pass"
    assert only(report, "teacher", margin=0.5)["outcome"] == "fail"
    assert only(report, "teacher", margin=4.0)["outcome"] == "pass"


@pytest.mark.parametrize(
    ("asked", "outcome", "code"),
    [
        ({"quality": 0.7}, "SHIP", 0),
        ({"quality": 0.95, "margin": 0.1}, "DO_NOT_SHIP", 3),
        ({"quality": 0.7, "margin": 0.1}, "NOT_ENOUGH_EVIDENCE", 4),
    ],
)
def test_the_verdict_follows_from_the_gates(asked: dict, outcome: str, code: int, report: dict[str, Any]) -> None:
    found = gates(report, BarConfig(name="test", **asked))
    assert (verdict(found, None)["outcome"], verdict(found, None)["exit_code"]) == (outcome, code)
    assert verdict(found, "pass")["against_baseline"] == "BEATS"


def test_a_bar_that_asks_for_nothing_gives_no_verdict(report: dict[str, Any]) -> None:
    assert gates(report, BarConfig(quality=0.99)) == []
    assert verdict([], "fail") == {
        "outcome": None,
        "exit_code": 0,
        "because": [],
        "against_baseline": "DOES_NOT_BEAT",
    }


def test_halves_cover_the_set(report: dict[str, Any]) -> None:
    sizes = [each["n"] for each in report["slices"].values()]
    assert np.sum(sizes) == NUM_ITEMS
