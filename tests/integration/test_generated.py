"""From a local teacher's text to a student: what is learnt from it, and what goes along with it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.generation.servers import overrides, prompts_file, tiny_chat_model

REASON = "a written permission, planted 4711"
DUTY = "name the teacher on every page"
EVALUATED = ["run={student}", "bar=none", "generate.limit=4", "generate.max_new_tokens=4", "ledger=evaluations.jsonl"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_chat_model(tmp_path_factory.mktemp("teacher"))


def local(teacher: str, prompts: Path, **changes: Any) -> list[str]:
    """A command line for a teacher in this process, instead of an endpoint."""
    given = overrides("http://unused", prompts, **changes)
    remote = ("teacher.endpoint.base_url", "teacher.endpoint.api_key_env")
    return ["teacher=local_text", f"teacher.endpoint.path={teacher}", *(t for t in given if not t.startswith(remote))]


def recipe(teacher: str, prompts: Path) -> list[str]:
    """A command line of a recipe that generates, trains on what came, and evaluates."""
    text = local(teacher, prompts, generation__max_tokens=6, generation__temperature=1.0, generation__seed=0)
    text = [each for each in text if not each.startswith(("run.dir=", "logger=", "teacher.terms.train_on"))]
    text = [each.replace("${teacher.model}", "m").replace("${teacher.revision}", "1") for each in text]
    text += ["teacher.terms.train_on_outputs='no'", f"teacher.terms.override_reason='{REASON}'"]
    text += [f"teacher.terms.duties=['{DUTY}']", "generation.filters.truncated=null"]
    student = ["data=generated", "data.source.path={text}", "data.validation_fraction=0.3", "data.test_fraction=0.3"]
    student += ["student=llama_stdlib_tiny", "student.config.hidden_size=16", "student.config.intermediate_size=32"]
    student += [f"student.tokenizer={teacher}", "optim.max_steps=1", "optim.max_epochs=null", "loss=ce"]
    stages = {"text": ("generate", text), "student": ("train", student), "evaluate": ("evaluate", EVALUATED)}
    nodes = {name: {"command": command, "overrides": given} for name, (command, given) in stages.items()}
    Path("own/recipe").mkdir(parents=True)
    Path("own/recipe/mine.yaml").write_text(json.dumps({"stages": nodes}))
    return ["run", "--config-dir", "own", "recipe=mine", "logger=none", "run.dir=recipe"]


@pytest.mark.slow
def test_a_recipe_generates_trains_and_evaluates_and_the_terms_reach_every_paper(teacher, tmp_path, potstill):
    command = recipe(teacher, prompts_file(tmp_path, [f"row {number}" for number in range(30)]))
    potstill(*command)
    assert json.loads(Path("recipe/text/export/export.json").read_text())["rows"] > 20
    papers = ["student/manifest.json", "student/student/README.md", "evaluation.json", "report.html", "ml-bom.json"]
    for path in papers:
        assert REASON in Path("recipe", path).read_text(), path
        assert DUTY in Path("recipe", path).read_text(), path

    outcome = potstill(*command)
    assert [name for name in ("text", "student", "evaluate") if f"Stage '{name}': skipped" in outcome.out] == [
        *("text", "student", "evaluate")
    ]
    ledger = sqlite3.connect("runs/generate/ledger/ledger.sqlite")
    calls = ledger.execute("SELECT sum(calls) FROM requests").fetchone()
    filtered = 'recipe.stages.text.extra=["generation.filters.empty=null","generation.filters.duplicate=null"]'
    assert "Stage 'text': potstill generate" in potstill(*command, filtered).out
    assert ledger.execute("SELECT sum(calls) FROM requests").fetchone() == calls, "other filters cost nothing"
    ledger.close()
