"""The model card: the hub can read its metadata, and it gives away nothing of the test set."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCard

from potstill.reporting.markdown import escaped
from potstill.reporting.model_card import model_card

from .evaluated import evaluated


def test_the_hub_reads_back_what_was_measured() -> None:
    evaluation = evaluated()
    data: Any = ModelCard(model_card(evaluation, "clinc150-student", "apache-2.0")).data
    assert data.pipeline_tag == "text-classification"
    assert data.license == "apache-2.0"
    results = {(each.dataset_config, each.metric_type): each.metric_value for each in data.eval_results}
    student = evaluation["models"]["student"]
    assert results[None, "accuracy"] == student["overall"]["accuracy"]
    assert results["domain=home", "accuracy"] == student["slices"]["domain=home"]["accuracy"]
    assert {each.dataset_name for each in data.eval_results} == {"clinc150"}


def test_verdict_and_gates_come_first_and_the_commands_last() -> None:
    text = ModelCard(model_card(evaluated(), "a")).text
    places = [text.index(part) for part in ("Verdict: do not ship", "## Gates", "## Slices", "    potstill evaluate")]
    assert places == sorted(places)


def test_texts_of_the_test_set_do_not_travel_with_the_model() -> None:
    secret = "what a customer wrote"
    assert secret not in model_card(evaluated(text=secret), "a")


def test_hostile_labels_are_neither_markup_nor_columns() -> None:
    evil = "a | b <script>`x`</script>\n# *c*"
    text = model_card(evaluated(labels=(evil, "home")), evil)
    body = text.partition("\n---\n")[2]
    assert "<script>" not in body.replace("\\<script", "")
    [row] = [line for line in body.splitlines() if line.startswith("| a \\|")]
    assert row.replace("\\|", "").count("|") == 7, "six cells"
    assert not [line for line in body.splitlines() if line.startswith("# *")]
    assert escaped("a_b*") == "a\\_b\\*"


def test_a_licence_that_nobody_recorded_is_not_claimed() -> None:
    assert "license" not in model_card(evaluated(), "a").partition("\n---\n")[0]
