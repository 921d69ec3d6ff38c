"""What happens once in a hundred evaluations has an outcome of its own, and no traceback."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from potstill.data.batch import IGNORE, Batch
from potstill.evaluation.bar import BarConfig
from potstill.evaluation.evaluate import EvaluationSet, ModelUnderTest, judge

from .echo import CAUSAL, IMAGES, Echo, answers, language_model, texts

LABELS = [n % 3 for n in range(60)]
BAR = BarConfig(name="edge", quality=0.5, margin=0.1, baseline=True, slice_margin=0.5, min_items=50, min_slice_items=5)


class Broken(Echo):
    """A nan in the logits of the first item."""

    def forward(self, pixel_values):
        output = super().forward(pixel_values)
        output.logits[0, 1] = math.nan
        return output


def judged(
    *,
    classes: list[int] | None = None,
    labels: list[int] | None = None,
    slices: list[str] | None = None,
    bar: BarConfig = BAR,
    kinds: dict | None = None,
    **models: Any,
) -> dict[str, Any]:
    labels = LABELS if labels is None else labels
    batches: list[Batch] = [answers(classes or [max(label, 0) for label in labels], labels)] if labels else []
    column = {} if slices is None else {"part": slices}
    data = EvaluationSet(batches, "", column, kinds=kinds or {})
    models = models or {"teacher": Echo(), "student": Echo(), "baseline": Echo(rotation=1)}
    report = judge({name: ModelUnderTest(model) for name, model in models.items()}, data, IMAGES, bar).report
    json.dumps(report, allow_nan=False)
    return report


def outcomes(report: dict[str, Any]) -> dict[str, str]:
    return {gate["name"]: gate["outcome"] for gate in report["gates"]}


def test_without_trouble_the_student_ships() -> None:
    report = judged(slices=["a"] * 30 + ["b"] * 30)
    assert report["verdict"]["outcome"] == "SHIP", report["verdict"]
    assert report["verdict"]["against_baseline"] == "BEATS"


def test_a_declared_slice_without_items_is_listed_and_keeps_the_verdict_open() -> None:
    kinds = {"part": ("regex", ["a", "b", "never"])}
    report = judged(slices=["a"] * 30 + ["b"] * 30, kinds=kinds)
    assert report["slices"]["part=never"]["n"] == 0
    assert report["models"]["student"]["slices"]["part=never"]["accuracy"] is None
    assert outcomes(report)["slices"] == "not_enough_evidence"
    assert report["verdict"]["outcome"] == "NOT_ENOUGH_EVIDENCE"
    assert "part=never" in report["verdict"]["because"][0]


def test_a_slice_of_one_item_says_so_and_is_never_green() -> None:
    report = judged(slices=["a"] * 59 + ["one"])
    group = report["models"]["student"]["slices"]["part=one"]
    assert (group["n"], group["accuracy"], group["is_too_small"]) == (1, 1.0, True)
    assert group["interval"][0] < 0.3, "one right answer is no evidence of more"
    pair = report["differences"]["student-teacher"]["slices"]["part=one"]
    assert (pair["value"], pair["interval"]) == (0.0, [None, None])
    assert report["verdict"]["outcome"] == "NOT_ENOUGH_EVIDENCE"
    assert report["models"]["student"]["worst_slice"] == "part=a"


def test_models_that_are_always_wrong_do_not_ship() -> None:
    wrong = {name: Echo(rotation=1) for name in ("teacher", "student", "baseline")}
    report = judged(**wrong)
    overall = report["models"]["student"]["overall"]
    assert (overall["accuracy"], overall["against_teacher"]["retention"]) == (0.0, None)
    assert overall["against_teacher"]["copied_errors"]["value"] == 1.0
    assert report["differences"]["student-baseline"]["p_value"] == 1.0
    assert outcomes(report)["quality"] == "fail"
    assert report["verdict"]["outcome"] == "DO_NOT_SHIP"
    assert report["verdict"]["against_baseline"] == "INCONCLUSIVE"


def test_items_without_a_label_are_counted_and_judge_nobody() -> None:
    report = judged(labels=[*LABELS[:55], *[IGNORE] * 5], slices=["a"] * 60)
    assert (report["data"]["n"], report["data"]["num_labelled"]) == (60, 55)
    assert report["models"]["student"]["overall"]["accuracy"] == 1.0
    assert report["differences"]["student-baseline"]["n"] == 55
    assert sum(report["models"]["student"]["overall"]["against_teacher"]["errors"].values()) == 55
    assert report["verdict"]["outcome"] == "SHIP"


def test_a_test_set_without_any_label_gives_no_evidence() -> None:
    report = judged(labels=[IGNORE] * 60)
    assert report["models"]["student"]["overall"]["accuracy"] is None
    assert report["models"]["student"]["overall"]["against_teacher"]["agreement"] == 1.0
    assert report["verdict"]["outcome"] == "NOT_ENOUGH_EVIDENCE"
    assert outcomes(report)["test_items"] == "not_enough_evidence"


def test_an_empty_test_set_gives_no_evidence() -> None:
    report = judged(labels=[])
    assert report["data"]["n"] == 0
    assert report["verdict"]["outcome"] == "NOT_ENOUGH_EVIDENCE"


def test_logits_of_nan_are_wrong_answers_and_fail_a_gate() -> None:
    report = judged(teacher=Echo(), student=Broken(), baseline=Echo(rotation=1))
    overall = report["models"]["student"]["overall"]
    assert (overall["num_nonfinite"], overall["accuracy"]) == (1, 59 / 60)
    assert overall["calibration"]["nll"] is None, "a mean without the row would flatter"
    assert outcomes(report)["finite"] == "fail"
    assert report["verdict"]["outcome"] == "DO_NOT_SHIP"
    assert report["examples"]["only_teacher_right"][0]["student"] is None


def test_a_language_model_that_says_nan_has_no_perplexity() -> None:
    model = language_model()
    with torch.no_grad():
        model.lm_head.weight[7, 0] = math.nan
    data = EvaluationSet([texts([3, 4, 5, 6], [7, 8])], "", {}, [30, 11])
    report = judge({"student": ModelUnderTest(model)}, data, CAUSAL, BarConfig(name="edge", quality=50.0)).report
    overall = report["models"]["student"]["overall"]
    assert (overall["perplexity"], overall["num_nonfinite"]) == (None, 4)
    assert report["verdict"]["outcome"] == "DO_NOT_SHIP"


def test_a_run_without_baseline_lacks_evidence_where_the_bar_asks_for_one() -> None:
    report = judged(teacher=Echo(), student=Echo())
    assert report["verdict"]["against_baseline"] is None
    assert outcomes(report)["baseline"] == "not_enough_evidence"
    assert "give baseline=PATH" in report["verdict"]["because"][0]


def test_a_run_without_teacher_lacks_evidence_where_the_bar_asks_for_one() -> None:
    bar = BarConfig(name="edge", retention=0.5, margin=0.1, slice_margin=0.5, copied_errors=0.5, min_items=50)
    report = judged(student=Echo(), baseline=Echo(rotation=1), bar=bar)
    asked = [outcomes(report)[name] for name in ("retention", "teacher", "slices", "copied_errors")]
    assert asked == ["not_enough_evidence"] * 4
    assert report["examples"] == {}


@pytest.mark.parametrize("number", [1, 2])
def test_one_or_two_items_are_too_few_for_anything(number: int) -> None:
    report = judged(labels=LABELS[:number], slices=["a"] * number)
    assert report["verdict"]["outcome"] == "NOT_ENOUGH_EVIDENCE"
