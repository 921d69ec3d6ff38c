"""Against servers that others wrote. `killing` and `storm` run by themselves too, with other numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.generation.killing import kill_and_resume
from tests.generation.servers import endpoint, overrides, prompts_file, tiny_chat_model, transformers_serve
from tests.generation.storm import storm
from tests.generation.test_generate import dropped, exported


@pytest.mark.slow
def test_transformers_serve_is_asked_and_found_out(tmp_path: Path, potstill):
    """It answers 200 to options that it ignores."""
    model = tiny_chat_model(tmp_path / "model")
    with transformers_serve(model, tmp_path) as server:
        keep = {"teacher__model": model, "generation__filters__truncated": "null"}
        given = overrides(server.url, prompts_file(tmp_path, [f"row {number}" for number in range(6)]), **keep)
        several = ["generation.samples=2", "generation.choices_per_request=2", "generation.temperature=0.7"]
        assert "is not given: 1 came back" in potstill("generate", *given, *several).words
        assert "logprobs=True is not given" in potstill("generate", *given, "+generation.body.logprobs=true").words
        unknown = potstill("generate", *given, "+generation.body.no_such_field=1")
        assert "Unexpected fields in the request" in unknown.words
        wrong = potstill("generate", *given, "teacher.model=another")
        assert (wrong.code, "Server is pinned to" in wrong.words) == (1, True)
        before = server.num_calls()
        for _ in range(2):
            assert potstill("generate", *given, "generation.filters.malformed=null").code == 0
            assert server.num_calls() == before + 6
        assert len(exported()) + len(dropped()) == 6
        plain = ["generation.api=completions", "run.dir=plain"]
        assert potstill("generate", *given, *plain).code == 0
        assert len(exported("plain")) + len(dropped("plain")) == 6


@pytest.mark.slow
def test_nothing_acknowledged_is_asked_again_after_a_kill(tmp_path: Path, potstill):
    def finish(given: list[str]) -> int:
        return potstill("generate", *given).code

    with endpoint(tmp_path, delay_s=0.02) as server:
        outcome = kill_and_resume(server, "m", tmp_path, num_rows=300, num_kills=1, finish=finish)
    assert outcome.asked_twice == 0
    assert outcome.calls - outcome.rows <= outcome.in_flight
    assert outcome.in_flight > 0, "killed when nothing was in flight, which shows nothing"
    assert outcome.same_export


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(1800)
def test_ten_kills_of_five_hundred_rows(tmp_path: Path):
    model = tiny_chat_model(tmp_path / "model")
    with transformers_serve(model, tmp_path) as server:
        outcome = kill_and_resume(server, model, tmp_path, num_rows=500, num_kills=10)
    assert outcome.asked_twice == 0
    assert outcome.calls - outcome.rows <= outcome.in_flight
    assert outcome.same_export


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.timeout(1800)
def test_a_storm_of_refusals_costs_no_attempt_and_little_of_the_limit(tmp_path: Path):
    outcome = storm(tmp_path, minutes=5, rpm=60)
    assert outcome.done == outcome.rows
    assert outcome.attempts == 1
    assert outcome.refused > 0
    assert outcome.goodput >= 0.8
