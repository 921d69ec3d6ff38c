"""A whole `evaluation.json`, as docs/evaluation_json.md says it, with numbers made up."""

from __future__ import annotations

import random
from typing import Any

from scipy.stats import binomtest

DOMAINS = (
    "auto_and_commute",
    "banking",
    "credit_cards",
    "home",
    "kitchen_and_dining",
    "meta",
    "out_of_scope",
    "travel",
)
NUM_ITEMS = 450
RIGHT = {"teacher": 0.94, "student": 0.84, "baseline": 0.66}


def evaluated(
    slices: tuple[str, ...] = DOMAINS, labels: tuple[str, str] = ("balance", "transfer"), text: str = "how much"
) -> dict[str, Any]:
    """slices: values of the column `domain`; the last but one is much worse. labels, text: of the examples."""
    random.seed(0)
    names = [f"domain={each}" for each in slices]
    models = {name: model(name, names) for name in RIGHT}
    return {
        "schema_version": 2,
        "task": "text_classification",
        "metric": "accuracy",
        "higher_is_better": True,
        "verdict": {
            "outcome": "DO_NOT_SHIP",
            "exit_code": 3,
            "because": [f"slices: the student loses more than 10.0 points on {names[-2]}"],
            "against_baseline": "BEATS",
        },
        "gates": gates(names),
        "bar": {"name": "clinc150", "min_accuracy": 0.8},
        "data": {
            "fingerprint": "a1b2",
            "split": "test",
            "n": NUM_ITEMS * len(names),
            "num_labelled": NUM_ITEMS * len(names),
            "manifest": "c3d4",
            "label_names": list(labels),
        },
        "slices": {
            name: {"kind": "column", "column": "domain", "value": name[7:], "n": NUM_ITEMS, "is_too_small": False}
            for name in names
        },
        "models": models,
        "differences": {"student-teacher": difference(-0.1, names), "student-baseline": difference(0.18, names)},
        "found_slices": None,
        "confusions": [{"gold": labels[0], "predicted": labels[1], "teacher": 2, "student": 14, "baseline": 21}],
        "examples": {
            kind: [quoted(labels, text)] * 2
            for kind in ("only_teacher_right", "both_wrong_alike", "both_wrong_apart", "only_model_right")
        },
        "seeds": {
            "runs": [
                {"path": f"runs/clinc150/{seed}/student", "seed": seed, "student": 0.84 + seed / 100, "baseline": 0.66}
                for seed in range(3)
            ],
            "metric": "accuracy",
            "student": {"mean": 0.85, "standard_deviation": 0.01, "n": 3},
            "baseline": {"mean": 0.66, "standard_deviation": 0.0, "n": 3},
            "difference": {"value": 0.19, "interval": [0.165, 0.215], "n": 3},
            "within_test": {"value": 0.18, "interval": [0.17, 0.19], "n": NUM_ITEMS * len(names)},
        },
        "contamination": contamination(text),
        "coverage": coverage(names),
        "teacher_quality": teacher_quality(names, labels, text),
        "provenance": provenance(),
        "measured": measured(),
    }


def model(name: str, slices: list[str]) -> dict[str, Any]:
    parts = {
        each: group(name, RIGHT[name] - (0.25 if each == slices[-2] else 0) + random.uniform(-0.05, 0.04))
        for each in slices
    }
    overall = group(name, sum(each["accuracy"] for each in parts.values()) / len(parts), NUM_ITEMS * len(parts))
    overall["calibration"] = {
        "ece": 0.07,
        "ece_interval": [0.06, 0.08],
        "mean_confidence": 0.9,
        "nll": 0.5,
        "entropy": 0.4,
        "reliability": bins(name),
    }
    overall["selective"] = [
        {"coverage": each, "n": 100, "accuracy": 1 - 0.16 * each, "interval": [0.8, 0.9]} for each in (1.0, 0.9, 0.8)
    ]
    size = {"parameters": 22_713_216 if name == "teacher" else 4_371_584, "model_bytes": 90_852_864, "flops": 1.2e9}
    worst = min(parts, key=lambda each: parts[each]["accuracy"])
    return {
        "path": f"runs/clinc150/0/{name}/student",
        "overall": overall,
        "slices": parts,
        "worst_slice": worst,
        "size": size,
    }


def group(name: str, share: float, n: int = NUM_ITEMS) -> dict[str, Any]:
    right = round(share * n)
    found = binomtest(right, n).proportion_ci(method="wilson")
    against = None
    if name != "teacher":
        errors = {
            "both_right": right - 5,
            "only_teacher_right": n - right - 17,
            "only_model_right": 5,
            "both_wrong_alike": 9,
            "both_wrong_apart": 8,
        }
        against = {
            "agreement": 0.87,
            "kl": 0.31,
            "top5_overlap": 0.8,
            "entropy_gap": 0.12,
            "retention": right / n / 0.94,
            "retention_interval": [right / n / 0.95, right / n / 0.93],
            "errors": errors,
            "copied_errors": {"value": 0.4, "interval": [0.2, 0.6], "n": 22},
        }
    return {
        "n": n,
        "num_labelled": n,
        "is_too_small": False,
        "num_items": n,
        "accuracy": right / n,
        "macro_f1": right / n,
        "interval": [found.low, found.high],
        "num_nonfinite": 0,
        "calibration": {"ece": 0.07, "ece_interval": None, "mean_confidence": 0.9, "nll": 0.5, "entropy": 0.4},
        "selective": None,
        "generation": None,
        "against_teacher": against,
    }


def bins(name: str) -> list[dict[str, Any]]:
    gap = {"teacher": 0.02, "student": 0.08, "baseline": 0.15}[name]
    return [
        {
            "low": n / 15,
            "high": (n + 1) / 15,
            "n": 5 * n**2,
            "confidence": (n + 0.5) / 15,
            "accuracy": max(0.0, (n + 0.5) / 15 - gap),
        }
        for n in range(15)
    ]


def difference(value: float, names: list[str]) -> dict[str, Any]:
    part = {"value": value, "interval": [value - 0.04, value + 0.04], "n": NUM_ITEMS, "p_value": 0.01, "p_holm": 0.08}
    return {
        "metric": "accuracy",
        "value": value,
        "interval": [value - 0.01, value + 0.01],
        "n": NUM_ITEMS * len(names),
        "p_value": 1.2e-9,
        "discordant": [20, 300],
        "smallest": 0.012,
        "slices": dict.fromkeys(names, part),
    }


def gates(names: list[str]) -> list[dict[str, Any]]:
    detail = [
        {
            "slice": name,
            "value": -0.05 - n / 100,
            "interval": [-0.08 - n / 100, -0.02 - n / 100],
            "n": NUM_ITEMS,
            "p_value": 0.4,
            "outcome": "pass",
        }
        for n, name in enumerate(names)
    ]
    return [
        gate(
            "slices",
            "fail",
            "advantage of the student over its teacher in accuracy, by slice",
            -0.26,
            -0.1,
            "at_least",
            [-0.3, -0.22],
            names[-2],
            detail[::-1],
        ),
        gate(
            "test_items", "not_enough_evidence", "number of labelled test items", 3600, 5000, "at_least", [3600, 3600]
        ),
        gate("quality", "pass", "accuracy of the student", 0.84, 0.8, "at_least", [0.83, 0.85]),
        gate(
            "baseline",
            "pass",
            "advantage of the student over the baseline in accuracy",
            0.18,
            0.0,
            "above",
            [0.17, 0.19],
        ),
        gate("retention", "pass", "retention of accuracy", 0.9, 0.85, "at_least", [0.89, 0.91]),
    ]


def gate(
    name: str,
    outcome: str,
    measure: str,
    value: float,
    threshold: float,
    side: str,
    interval: list[float],
    where: str | None = None,
    details: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    says = f"{measure} is {value}, asked for is {threshold}."
    return {
        "name": name,
        "outcome": outcome,
        "measure": measure,
        "value": value,
        "threshold": threshold,
        "side": side,
        "interval": interval,
        "n": 3600,
        "slice": where,
        "says": says,
        "details": details or [],
    }


def quoted(labels: tuple[str, str], text: str) -> dict[str, Any]:
    return {
        "item": "ff00",
        "text": text,
        "gold": labels[0],
        "teacher": labels[0],
        "student": labels[1],
        "teacher_confidence": 0.8,
        "student_confidence": 0.97,
        "slices": {"domain": "banking"},
    }


def contamination(text: str) -> dict[str, Any]:
    part = {"value": 0.84, "interval": [0.83, 0.85], "n": 3464}
    item = {"item": "ff00", "text": text, "split": "train", "other_text": text, "jaccard": 0.91, "kind": "near"}
    return {
        "n": 3600,
        "num_dirty": 136,
        "num_exact": 19,
        "num_near": 117,
        "num_ngram": 0,
        "models": {"student": {"clean": part, "dirty": {"value": 0.9, "interval": [0.85, 0.94], "n": 136}}},
        "items": [item] * 40,
    }


def coverage(names: list[str]) -> dict[str, Any]:
    cells = [
        {
            "cell": name,
            "column": "domain",
            "status": "covered" if n else "empty",
            "num_transfer": 1500 * n,
            "transfer_share": 0.1 if n else 0.0,
            "num_sample": 450,
            "sample_share": 0.1,
            "lacking": 0.0,
            "rows_to_fill": 0 if n else 1500,
        }
        for n, name in enumerate(names)
    ]
    errors = {
        name: {
            "bins": [
                {
                    "low": 0.2 * n,
                    "high": 0.2 * n + 0.2,
                    "n": 720,
                    "count": 72,
                    "value": (1 - right) * (1 + n),
                    "interval": [(1 - right) * (0.8 + n), min(1.0, (1 - right) * (1.2 + n))],
                }
                for n in range(5)
            ],
            "spearman": 0.3,
        }
        for name, right in {"teacher": 0.98, "student": 0.95}.items()
    }
    return {
        "num_transfer": 13_500,
        "num_sample": 3600,
        "cells": cells,
        "empty": names[:1],
        "thin": [],
        "columns": {},
        "distance": {"embedding": "TF-IDF", "n": 3600, "quantiles": {}, "errors": errors, "farthest": []},
    }


def teacher_quality(names: list[str], labels: tuple[str, str], text: str) -> dict[str, Any]:
    rates = [
        {
            "slice": name,
            "n": 450,
            "count": 27,
            "value": 0.06,
            "interval": [0.04, 0.09],
            "p_value": 0.5,
            "p_holm": 1.0,
            "is_worse": False,
        }
        for name in names
    ]
    review = {"item": 3, "text": text, "gold": labels[0], "teacher": labels[1], "confidence_in_gold": 0.01}
    return {
        "overall": {"n": 3600, "count": 216, "value": 0.06, "interval": [0.05, 0.07]},
        "slices": rates,
        "named": [names[-2]],
        "conflicts": [{"text": text, "labels": dict.fromkeys(labels, 2), "items": [1, 2]}],
        "review_method": "confident learning",
        "num_review": 1,
        "review": [review],
    }


def provenance() -> dict[str, Any]:
    run = {
        "path": "runs/clinc150/0/student",
        "seed": 0,
        "experiment": "clinc150",
        "status": "finished",
        "started_at": "2026-11-28T07:00:00+00:00",
        "git": {"potstill": {"commit": "f19a6c6" * 5, "dirty": True}},
        "data": "a1b2",
        "fingerprints": {},
        "licences": {"teacher": "apache-2.0"},
        "command": ["potstill", "train"],
    }
    config = {"student": {"config": {"model_type": "bert"}}, "data": {"source": {"root": "../shared/data/clinc150"}}}
    return {
        "potstill": "0.1.0",
        "rerun": "potstill evaluate run=runs/clinc150/0 bar=clinc150",
        "runs": {"student": run, "baseline": {**run, "path": "runs/clinc150/0/baseline"}},
        "teacher": {"../shared/teachers/clinc150_minilm_l6": "8766da4ebcd3"},
        "config": config,
    }


def measured() -> dict[str, Any]:
    mix = {
        "batch": 8,
        "concurrency": 2,
        "latency_ms_p50": 9.0,
        "latency_ms_p95": 12.0,
        "latency_ms_p99": 14.0,
        "examples_per_s": 900.0,
    }
    times = {
        "latency_ms_p50": 1.34,
        "latency_ms_p95": 2.5,
        "latency_ms_p99": 3.1,
        "peak_bytes": 512_000_000,
        "latency_device": "cpu",
        "mixes": [mix],
    }
    return {
        "at": "2026-11-28T07:10:00+00:00",
        "machine": {"system": "Linux", "cpu": "x86_64", "num_threads": 1, "device": "cpu", "torch": "2.13.0"},
        "openings": {"count": 4, "limit": 20, "ledger": "evaluations.jsonl"},
        "models": {name: {**times, "latency_ms_p50": 1.34 * n} for n, name in enumerate(RIGHT, 1)},
        "break_even": {
            "requests": 1_200_000,
            "months": 2.4,
            "cost_per_request": {"teacher": 0.0002, "student": 0.00005},
            "build_cost": 180.0,
            "requests_per_month": 500_000,
        },
        "when_not_to_distil": [
            {"rule": "too_little_traffic", "applies": False, "says": "2.4 months to break even."},
            {"rule": "worst_slice_fails", "applies": True, "says": "out_of_scope fails its gate."},
            {"rule": "smaller_model_meets_bar", "applies": None, "says": "No other model was evaluated."},
        ],
    }
