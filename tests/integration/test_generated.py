"""From a local teacher's text to a student: what is learnt from it, and what goes along with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.generation.servers import overrides, prompts_file, tiny_chat_model

REASON = "a written permission, planted 4711"
DUTY = "name the teacher on every page"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_chat_model(tmp_path_factory.mktemp("teacher"))


def local(teacher: str, prompts: Path, **changes: Any) -> list[str]:
    """A command line for a teacher in this process, instead of an endpoint."""
    given = overrides("http://unused", prompts, **changes)
    remote = ("teacher.endpoint.base_url", "teacher.endpoint.api_key_env")
    return ["teacher=local_text", f"teacher.endpoint.path={teacher}", *(t for t in given if not t.startswith(remote))]


def student(teacher: str, *further: str) -> list[str]:
    """A command line that trains one on the export in `out`."""
    data = ["data=generated", "data.source.path=out", "data.validation_fraction=0.3", "data.test_fraction=0.3"]
    size = ["student=llama_stdlib_tiny", "student.config.hidden_size=16", "student.config.intermediate_size=32"]
    steps = ["optim.max_steps=1", "optim.max_epochs=null", "loss=ce", "logger=none", "run.dir=student"]
    return [*data, *size, f"student.tokenizer={teacher}", *steps, *further]


@pytest.mark.slow
def test_the_terms_of_an_export_reach_every_paper_of_a_student(teacher, tmp_path, potstill):
    given = local(teacher, prompts_file(tmp_path, [f"row {number}" for number in range(30)]))
    given += ["generation.filters.truncated=null", "generation.max_tokens=6", "generation.temperature=1.0"]
    terms = ["teacher.terms.train_on_outputs='no'", f"teacher.terms.override_reason='{REASON}'"]
    outcome = potstill("generate", *given, *terms, f"teacher.terms.duties=['{DUTY}']")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("out/export/export.json").read_text())["rows"] > 20

    outcome = potstill("train", *student(teacher))
    assert outcome.code == 0, outcome.err
    potstill("evaluate", "run=student", "output=evaluation", "bar=none", "logger=none")
    papers = ["student/manifest.json", "student/student/README.md"]
    papers += [f"evaluation/{name}" for name in ("evaluation.json", "report.html", "ml-bom.json")]
    for path in papers:
        assert REASON in Path(path).read_text(), path
        assert DUTY in Path(path).read_text(), path
