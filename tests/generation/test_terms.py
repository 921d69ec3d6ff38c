from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from potstill.errors import UserError
from potstill.generation.terms import REQUIRED, Terms, check_terms


@pytest.fixture
def terms(tmp_path: Path) -> Terms:
    text = tmp_path / "terms.html"
    text.write_text("You may.")
    return Terms(
        provider="us",
        model="m",
        revision="1",
        url="https://example.com/terms",
        retrieved="2026-01-31",
        text=str(text),
        sha256=hashlib.sha256(b"You may.").hexdigest(),
        reviewer="somebody",
        train_on_outputs="yes",
    )


def refusal(terms: Terms, model: str = "m") -> UserError:
    with pytest.raises(UserError) as caught:
        check_terms(terms, model, "1")
    return caught.value


def test_terms_in_full_are_taken(terms):
    assert check_terms(terms, "m", "1") is None


@pytest.mark.parametrize("name", REQUIRED)
def test_nothing_is_asked_while_a_field_is_empty(name, terms):
    assert refusal(replace(terms, **{name: None})).key == f"teacher.terms.{name}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "another"),
        ("revision", "2"),
        ("url", "somewhere"),
        ("retrieved", "31.1.2026"),
        ("text", "nowhere.html"),
        ("sha256", "0" * 64),
        ("train_on_outputs", "maybe"),
    ],
)
def test_a_record_that_is_of_something_else_is_refused(name, value, terms):
    assert refusal(replace(terms, **{name: value})).key == f"teacher.terms.{name}"


@pytest.mark.parametrize("answer", ["no", "unknown", False])
def test_no_and_unknown_stop_unless_a_reason_goes_on_record(answer, terms):
    forbidden = replace(terms, train_on_outputs=answer)
    assert refusal(forbidden).key == "teacher.terms.train_on_outputs"
    assert refusal(replace(forbidden, override_reason="why not")).key == "teacher.terms.train_on_outputs"
    reason = "a written permission of 2026-01-30"
    assert check_terms(replace(forbidden, override_reason=reason), "m", "1") == reason


def test_a_reason_that_overrides_nothing_is_refused(terms):
    assert refusal(replace(terms, override_reason="to be sure of it")).key == "teacher.terms.override_reason"


def test_conditions_without_duties_are_refused(terms):
    conditional = replace(terms, train_on_outputs="conditional")
    assert refusal(conditional).key == "teacher.terms.duties"
    assert check_terms(replace(conditional, duties=["say where it is from"]), "m", "1") is None
