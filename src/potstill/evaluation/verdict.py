"""The verdict: computed of the gates, never typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SHIP, DO_NOT_SHIP, NOT_ENOUGH_EVIDENCE = "SHIP", "DO_NOT_SHIP", "NOT_ENOUGH_EVIDENCE"
EXIT_CODES = {SHIP: 0, DO_NOT_SHIP: 3, NOT_ENOUGH_EVIDENCE: 4, None: 0}
PASS, FAIL, UNKNOWN = "pass", "fail", "not_enough_evidence"
ORDER = (FAIL, UNKNOWN, PASS)  # of gates and slices: the most severe first
AGAINST_BASELINE = {PASS: "BEATS", FAIL: "DOES_NOT_BEAT", UNKNOWN: "INCONCLUSIVE", None: None}


def verdict(gates: Sequence[dict[str, Any]], against_baseline: str | None) -> dict[str, Any]:
    """One gate that failed is DO_NOT_SHIP; else one without evidence is NOT_ENOUGH_EVIDENCE; else SHIP.

    Without a gate there is no verdict: nothing was asked for. against_baseline: outcome of that gate, also where the
    bar does not ask for it.
    """
    outcomes = {gate["outcome"] for gate in gates}
    if not gates:
        outcome = None
    elif FAIL in outcomes:
        outcome = DO_NOT_SHIP
    elif UNKNOWN in outcomes:
        outcome = NOT_ENOUGH_EVIDENCE
    else:
        outcome = SHIP
    decisive = [gate for gate in gates if gate["outcome"] == gates[0]["outcome"]]
    return {
        "outcome": outcome,
        "exit_code": EXIT_CODES[outcome],
        "because": [f"{gate['name']}: {gate['says']}" for gate in decisive],
        "against_baseline": AGAINST_BASELINE[against_baseline],
    }
