"""How far seeds alone carry runs apart, beside how sure one test of one run is."""

# S seeds

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from potstill.evaluation.shares import as_dict
from potstill.evaluation.statistics import paired_t_interval


def between_seeds(runs: Sequence[dict[str, Any]], report: dict[str, Any]) -> dict[str, Any] | None:
    """runs: this one first. None where there is no other."""
    if len(runs) < 2:
        return None
    students, baselines = ([run[name] for run in runs] for name in ("student", "baseline"))
    has_pairs = all(value is not None for value in (*students, *baselines))
    pair = report["differences"].get("student-baseline")
    return {
        "runs": list(runs),
        "metric": report["metric"],
        "student": _spread(students),
        "baseline": _spread(baselines) if has_pairs else None,
        "difference": as_dict(paired_t_interval(students, baselines)) if has_pairs else None,
        "within_test": {name: pair[name] for name in ("value", "interval", "n")} if pair else None,
    }


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    known_S = np.array([value for value in values if value is not None], dtype=float)
    return {
        "mean": float(known_S.mean()) if len(known_S) else math.nan,
        "standard_deviation": float(known_S.std(ddof=1)) if len(known_S) > 1 else math.nan,
        "n": len(known_S),
    }
