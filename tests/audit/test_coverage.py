"""Cells of the sample that the transfer set leaves empty or thin, and what it takes to fill them."""

from __future__ import annotations

import pytest

from potstill.audit.coverage import coverage
from tests.audit.examples import clinc150, column


def columns(**counts: int) -> dict[str, list[str]]:
    return {"domain": [value for value, count in counts.items() for _ in range(count)]}


def cell(result: dict, name: str) -> dict:
    return next(each for each in result["cells"] if each["cell"] == name)


def test_an_empty_cell_is_named_first_with_the_rows_that_fill_it():
    result = coverage(columns(bank=100, travel=300), columns(bank=10, travel=30, home=20))
    assert result["empty"] == ["domain=home"]
    assert result["cells"][0]["cell"] == "domain=home"
    assert result["cells"][0]["rows_to_fill"] == 200  # ten for each of the sample, as the others have
    assert result["columns"]["domain"]["rows_to_fill"] == 200


def test_a_thin_cell_is_one_with_less_than_half_its_share():
    result = coverage(columns(bank=45, travel=55), columns(bank=50, travel=50))
    assert (result["empty"], result["thin"]) == ([], [])
    result = coverage(columns(bank=20, travel=80), columns(bank=50, travel=50))
    assert result["thin"] == ["domain=bank"]
    assert cell(result, "domain=bank")["rows_to_fill"] == 30  # up to the middle of 0.4 and 1.6 for each


def test_what_nobody_asks_for_is_no_gap():
    result = coverage(columns(bank=10, travel=10), columns(bank=5))
    assert cell(result, "domain=travel")["status"] == "not in the sample"
    assert cell(result, "domain=travel")["rows_to_fill"] == 0


def test_pairs_of_slices_are_cells_of_their_own():
    transfer = {"domain": ["bank", "bank", "home"], "language": ["de", "en", "en"]}
    sample = {"domain": ["bank", "home", "home"], "language": ["de", "de", "en"]}
    assert coverage(transfer, sample)["empty"] == []
    result = coverage(transfer, sample, crossed=["domain", "language"])
    assert result["empty"] == ["domain=home & language=de"]


def test_with_nothing_at_all_nobody_knows_what_would_fill_it():
    result = coverage({"domain": []}, columns(bank=3))
    assert result["empty"] == ["domain=bank"]
    assert result["cells"][0]["rows_to_fill"] is None


def test_a_domain_taken_from_clinc150_is_named_first(shared):
    train, test = clinc150(shared, "train"), clinc150(shared, "test")
    left = [row for row in train if row["domain"] != "travel"]
    names = ("domain", "intent")
    result = coverage(*({name: column(rows, name) for name in names} for rows in (left, test)))
    assert result["cells"][0]["cell"] == "domain=travel"
    assert result["cells"][0]["rows_to_fill"] == 1500
    assert result["columns"]["intent"]["num_empty"] == 15
    assert result["thin"] == ["domain=out_of_scope", "intent=oos"]


@pytest.mark.parametrize("names", [["domain"], []])
def test_no_sample_has_no_gaps(names):
    assert coverage(columns(bank=3), {name: [] for name in names})["empty"] == []
