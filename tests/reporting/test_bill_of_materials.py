"""ml-bom.json holds against CycloneDX' own schema, and names what the student was made from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.validation.json import JsonStrictValidator

from potstill.reporting.bill_of_materials import VERSION, bill_of_materials
from potstill.reporting.provenance import Provenance, read_provenance

from .evaluated import evaluated

WRITER = {
    **{"provider": "us", "model": "writer", "revision": "1", "url": "https://example.com/terms", "export": "a1b2"},
    **{"train_on_outputs": "conditional", "override_reason": None, "duties": ["say so", "ask first"]},
}


@pytest.fixture
def run(tmp_path: Path) -> Provenance:
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "model.safetensors").write_bytes(b"weights")
    manifest = {
        "finished_at": "2026-11-28T07:00:00+00:00",
        "versions": {"python": "3.11.7", "torch": "2.13.0+cpu", "numpy": None},
        "fingerprints": {"../teachers/large": "8766da4e"},
        "licences": {"../teachers/large": "Apache-2.0"},
        "licence_records": [WRITER],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    config = "run: {name: clinc150-0}\nteacher: {path: ../teachers/large}\nstudent: {config: {model_type: bert}}\n"
    (tmp_path / "config.yaml").write_text(config + "data: {source: {root: ../shared/data/clinc150}}\n")
    return read_provenance(tmp_path)


def written(run: Provenance, **changes: Any) -> dict[str, Any]:
    return json.loads(bill_of_materials({**evaluated(), **changes}, run))


def test_it_holds_against_the_schema_and_the_check_can_fail(run: Provenance) -> None:
    validator = JsonStrictValidator(VERSION)
    text = bill_of_materials(evaluated(), run)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"modelParameters"', '"parameters"')) is not None


def test_student_teacher_data_and_packages_are_all_there(run: Provenance) -> None:
    content = written(run)
    student = content["metadata"]["component"]
    [found] = student["hashes"]
    assert found == {"alg": "SHA-256", "content": hashlib.sha256(b"weights").hexdigest()}
    parts = {part["name"]: part for part in content["components"]}
    assert set(parts) == {"large", "clinc150", "torch", "writer"}
    assert parts["large"]["licenses"] == [{"license": {"name": "Apache-2.0"}}]
    assert parts["torch"]["purl"] == "pkg:pypi/torch@2.13.0"
    [made_from] = [each["dependsOn"] for each in content["dependencies"] if each["ref"] == student["bom-ref"]]
    assert len(made_from) == 4
    duties = [each["value"] for each in parts["writer"]["properties"] if each["name"] == "potstill:duty"]
    assert duties == ["ask first", "say so"]


def test_the_card_in_it_has_the_students_numbers_with_their_intervals(run: Provenance) -> None:
    card = written(run)["metadata"]["component"]["modelCard"]
    student = evaluated()["models"]["student"]
    metrics = {(each["type"], each.get("slice")): each for each in card["quantitativeAnalysis"]["performanceMetrics"]}
    worst = metrics["accuracy", "domain=out_of_scope"]
    assert worst["value"] == str(student["slices"]["domain=out_of_scope"]["accuracy"])
    assert worst["confidenceInterval"]["lowerBound"] == str(student["slices"]["domain=out_of_scope"]["interval"][0])
    assert card["considerations"]["technicalLimitations"] == evaluated()["verdict"]["because"]


def test_the_same_evaluation_gives_the_same_bytes_and_another_verdict_another_number(run: Provenance) -> None:
    assert bill_of_materials(evaluated(), run) == bill_of_materials(evaluated(), run)
    passed = {"outcome": "SHIP", "exit_code": 0, "because": [], "against_baseline": "BEATS"}
    assert written(run)["serialNumber"] != written(run, verdict=passed)["serialNumber"]


def test_a_run_that_left_no_record_still_has_a_valid_one(tmp_path: Path) -> None:
    text = bill_of_materials(evaluated(), read_provenance(tmp_path))
    assert JsonStrictValidator(VERSION).validate_str(text) is None
