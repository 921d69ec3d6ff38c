"""Does the student pay? When it has earned what it cost, and when not to distil at all."""

from __future__ import annotations

from typing import Any

from potstill.evaluation.bar import PricesConfig
from potstill.evaluation.gates import Found, outcome_of
from potstill.evaluation.verdict import FAIL, PASS

MAX_MONTHS = 12  # a saving that takes longer to come is none to plan with


def break_even(prices: PricesConfig) -> dict[str, Any] | None:
    """Requests, and months at the given traffic, until the student has saved what it cost to build.

    None where a price is not known. `requests` is None where the student saves nothing on a request.
    """
    teacher, student, build = prices.teacher_per_1000, prices.student_per_1000, prices.build
    if teacher is None or student is None or build is None:
        return None
    saved = (teacher - student) / 1000
    requests = build / saved if saved > 0 else None
    traffic = prices.requests_per_month
    return {
        "requests": requests,
        "months": requests / traffic if requests is not None and traffic else None,
        "cost_per_request": {"teacher": teacher / 1000, "student": student / 1000},
        "build_cost": build,
        "requests_per_month": traffic,
    }


def when_not_to_distil(report: dict[str, Any], pays: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Rules that speak against the student: `applies` true, false, or None where nobody measured it."""
    return [_traffic(pays), _worst_slice(report), _other_model(report), _baseline(report)]


def _rule(rule: str, applies: bool | None, says: str) -> dict[str, Any]:
    return {"rule": rule, "applies": applies, "says": says}


def _traffic(pays: dict[str, Any] | None) -> dict[str, Any]:
    rule = "too little traffic"
    if pays is None:
        return _rule(rule, None, "bar.prices do not say what a request costs")
    if pays["requests"] is None:
        return _rule(rule, True, "the student saves nothing on a request")
    if pays["months"] is None:
        return _rule(rule, None, f"pays after {pays['requests']:,.0f} requests; bar.prices.requests_per_month is null")
    says = f"pays after {pays['months']:.1f} months at {pays['requests_per_month']:,.0f} requests a month"
    return _rule(rule, pays["months"] > MAX_MONTHS, says)


def _worst_slice(report: dict[str, Any]) -> dict[str, Any]:
    found = [gate for gate in report["gates"] if gate["name"] in ("slices", "worst_slice")]
    says = "; ".join(gate["says"] for gate in found) or "the bar asks for nothing on slices"
    return _rule("worst slice fails", any(gate["outcome"] == FAIL for gate in found) if found else None, says)


def _other_model(report: dict[str, Any]) -> dict[str, Any]:
    """A model that nobody has to distil, and that is no larger than the student, reaches the bar's quality."""
    rule, quality, metric = "a smaller model meets the bar", report["bar"]["quality"], report["metric"]
    others = {name: model for name, model in report["models"].items() if name not in ("teacher", "student", "baseline")}
    student = report["models"].get("student")
    if quality is None or not others or student is None:
        return _rule(rule, None, "no bar.quality, or no other model was evaluated: models.NAME=PATH, quantised=true")
    side = "at_least" if report["higher_is_better"] else "at_most"
    good = [
        name
        for name, model in others.items()
        if outcome_of(Found.of(model["overall"], metric, "num_items"), quality, side) == PASS
        and model["size"]["model_bytes"] <= student["size"]["model_bytes"]
    ]
    said = ", ".join(good) if good else "none"
    return _rule(
        rule, bool(good), f"{said} of {', '.join(others)} reaches {metric} {quality:.4g} at the student's size"
    )


def _baseline(report: dict[str, Any]) -> dict[str, Any]:
    against = report["verdict"]["against_baseline"]
    says = f"student against baseline: {against}" if against else "no baseline was evaluated"
    return _rule("labels alone do as well", None if against is None else against == "DOES_NOT_BEAT", says)
