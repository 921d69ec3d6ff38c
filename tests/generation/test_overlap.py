"""Prompts that stand in the test split, left out where that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.generation.servers import Running, overrides, prompts_file
from tests.generation.test_generate import dropped, exported, manifest

pytestmark = pytest.mark.slow
LONG = "the quick brown fox jumps over the lazy dog"


def test_prompts_that_stand_in_test_are_not_asked_and_are_listed(server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, ["one", "A test  item!", f"{LONG}s", "two"]))
    test = prompts_file(tmp_path, ["a TEST item", LONG], "test.jsonl")
    given += [f"data.source.test={test}"]
    assert "Leave them out: data.drop_copies=exact" in potstill("generate", *given).words
    assert potstill("generate", *given, "data.drop_copies=exact").code == 0
    assert sorted(server.prompts()) == sorted(["one", f"{LONG}s", "two"])
    assert [(row["row"], row["prompt"]) for row in exported()] == [(0, "one"), (2, f"{LONG}s"), (3, "two")]
    assert dropped() == {"A test  item!": "left out: stands in the test split"}
    assert manifest()["counts"] == {"kept": 3, "unanswered/left out": 1}


@pytest.mark.parametrize(("value", "said"), [("all", "is not one of the choices"), ("exact", "and there is none")])
def test_leaving_out_what_is_in_no_test_split_is_refused(value, said, server: Running, tmp_path: Path, potstill):
    given = overrides(server.url, prompts_file(tmp_path, ["one"]))
    outcome = potstill("generate", *given, f"data.drop_copies={value}")
    assert (outcome.code, said in outcome.words, server.prompts()) == (2, True, [])


def test_a_template_that_does_not_fit_is_refused_before_a_model_is_loaded(tmp_path: Path, potstill):
    given = [text for text in overrides("", prompts_file(tmp_path, ["one"])) if "teacher.endpoint" not in text]
    local = ["teacher=local_text", "teacher.endpoint.path=no/such/model", "generation.prompt='{{ txt }}'"]
    outcome = potstill("generate", *given, *local)
    assert (outcome.code, "Nearest: 'text'." in outcome.words) == (2, True)
