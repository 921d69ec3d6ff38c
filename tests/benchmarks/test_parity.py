"""The table of comparisons, of a project that the tests have."""

from __future__ import annotations

import pytest

from benchmarks import parity
from benchmarks.parity_cases import CASES

pytestmark = pytest.mark.slow  # imports sentence-transformers


def test_the_table_has_a_row_for_each_case_that_can_run_and_names_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    known = "sentence-transformers"
    monkeypatch.setattr(parity, "version", lambda peer: "1.0" if peer == known else None)
    of_known = [case for case in CASES if case.peer == known][:2]
    strangers = [case for case in CASES if case.peer == "trl"][:1]
    monkeypatch.setattr(parity, "CASES", [*strangers, *of_known])
    head, missing, _, columns, _, *rows = parity.report()
    assert head.endswith(f"20 seeds: {known} 1.0.")
    assert missing == "Not installed: trl."
    assert [row.split(" | ")[1] for row in rows] == [case.name for case in of_known]
    assert {row.count(" | ") for row in (columns, *rows)} == {5}


def test_no_cell_breaks_the_table() -> None:
    assert [case.name for case in CASES if "|" in case.name + case.our_name + case.convention] == []
