"""`ml-bom.json`: the student, and all that it was made from, as a CycloneDX bill of materials.

The library writes components and dependencies. It has no class for CycloneDX' model card, which is added to what it
wrote; the whole is held against the schema by the tests.
"""

# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# The library's decorators hide its classes from type checkers.

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from potstill.reporting.provenance import Provenance
from potstill.reporting.reading import bounds, shown

VERSION = SchemaVersion.V1_6
STUDENT, DATA = "student", "data"  # references within the file
NOT_PACKAGES = ("python",)


def bill_of_materials(evaluation: Mapping[str, Any], provenance: Provenance) -> str:
    """The file's text; the same run and evaluation give the same bytes."""
    student = _student(evaluation, provenance)
    parts = [_data(evaluation, provenance), *_teachers(provenance), *_writers(provenance), *_packages(provenance)]
    bom = Bom(components=parts, serial_number=_serial_number(student))
    bom.metadata.component, bom.metadata.timestamp = student, _finished(provenance)
    bom.register_dependency(student, parts)
    text = make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string()
    content = json.loads(text)
    content["metadata"]["component"]["modelCard"] = _model_card(evaluation, provenance)
    return json.dumps(content, indent=2) + "\n"


def _student(evaluation: Mapping[str, Any], provenance: Provenance) -> Component:
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=_sha256(file)) for file in provenance.weights]
    facts = {"potstill:run": provenance.directory.name, "potstill:files": _names(provenance.weights)}
    facts["potstill:verdict"] = evaluation["verdict"]["outcome"]
    return Component(
        name=provenance.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=STUDENT,
        version=hashes[0].content[:12] if hashes else None,
        hashes=hashes[:1],  # of one file only can a component say the hash
        description="A student model, distilled and evaluated by potstill.",
        properties=[Property(name=name, value=value) for name, value in facts.items() if value],
    )


def _data(evaluation: Mapping[str, Any], provenance: Provenance) -> Component:
    source = next((str(value) for key, value in provenance.config.items() if key == "data.source.root"), None)
    facts = {"potstill:fingerprint": evaluation["data"]["fingerprint"], "potstill:source": source}
    return Component(
        name=Path(source).name if source else str(provenance.config.get("data.source._target_", DATA)),
        type=ComponentType.DATA,
        bom_ref=DATA,
        version=evaluation["data"]["fingerprint"],
        description="Training, validation and test data, split before any teacher was asked.",
        properties=[Property(name=name, value=value) for name, value in facts.items() if value],
    )


def _teachers(provenance: Provenance) -> Iterator[Component]:
    """Their hash is that of a directory's files and names together, for which CycloneDX has no field of its own."""
    fingerprints, licences = provenance.manifest.get("fingerprints", {}), provenance.manifest.get("licences", {})
    for key, path in provenance.teachers.items():
        licence, print_ = licences.get(path), fingerprints.get(path)
        yield Component(
            name=Path(path).name if Path(path).name != "student" else Path(path).parent.name,
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=key,
            version=print_[:12] if print_ else None,
            licenses=[DisjunctiveLicense(name=licence)] if licence else None,
            description="A teacher.",
            properties=[Property(name="potstill:fingerprint", value=print_)] if print_ else None,
        )


def _writers(provenance: Provenance) -> Iterator[Component]:
    """Teachers of which the student has the text alone, with the terms of it."""
    for record in provenance.manifest.get("licence_records", []):
        facts = [("potstill:train_on_outputs", record["train_on_outputs"]), ("potstill:export", record["export"])]
        facts += [("potstill:override_reason", record["override_reason"])] if record["override_reason"] else []
        facts += [("potstill:duty", duty) for duty in record["duties"]]
        yield Component(
            name=record["model"],
            type=ComponentType.MACHINE_LEARNING_MODEL,
            bom_ref=f"text:{record['export']}",
            version=record["revision"],
            supplier=OrganizationalEntity(name=record["provider"]),
            licenses=[DisjunctiveLicense(name=f"terms of {record['provider']}", url=XsUri(record["url"]))],
            description="A teacher that wrote text.",
            properties=[Property(name=name, value=value) for name, value in facts],
        )


def _packages(provenance: Provenance) -> Iterator[Component]:
    for name, version in provenance.manifest.get("versions", {}).items():
        if version and name not in NOT_PACKAGES:
            url = PackageURL("pypi", name=name, version=version.partition("+")[0])
            yield Component(name=name, version=version, type=ComponentType.LIBRARY, purl=url, bom_ref=f"pypi:{name}")


def _model_card(evaluation: Mapping[str, Any], provenance: Provenance) -> dict[str, Any]:
    limits = list(evaluation["verdict"]["because"])
    parameters = {
        "approach": {"type": "supervised"},
        "task": evaluation["task"],
        "modelArchitecture": str(provenance.config.get("student.config.model_type") or "see the student's config.json"),
        "datasets": [{"ref": DATA}],
    }
    card = {"modelParameters": parameters, "quantitativeAnalysis": {"performanceMetrics": list(_metrics(evaluation))}}
    return card | ({"considerations": {"technicalLimitations": limits}} if limits else {})


def _metrics(evaluation: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The student's: all of them overall, the main one for every slice."""
    report, metric = evaluation["models"][shown(evaluation)], evaluation["metric"]
    for name, value in report["overall"].items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield {"type": name, "value": str(value), **(_interval(report["overall"]) if name == metric else {})}
    for name, numbers in report["slices"].items():
        if numbers.get(metric) is not None:
            yield {"type": metric, "value": str(numbers[metric]), "slice": name, **_interval(numbers)}


def _interval(group: Mapping[str, Any]) -> dict[str, Any]:
    low, high = bounds(group)
    return {} if low is None else {"confidenceInterval": {"lowerBound": str(low), "upperBound": str(high)}}


def _serial_number(student: Component) -> uuid.UUID:
    text = (
        f"{student.name} {[each.content for each in student.hashes]} {[str(each.value) for each in student.properties]}"
    )
    return uuid.uuid5(uuid.NAMESPACE_URL, text)


def _finished(provenance: Provenance) -> datetime:
    """When the training ended: a file of a run should not change with the hour at which somebody reads it."""
    text = (
        provenance.manifest.get("finished_at") or provenance.manifest.get("started_at") or "1970-01-01T00:00:00+00:00"
    )
    return datetime.fromisoformat(text)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _names(files: list[Path]) -> str:
    return ", ".join(file.name for file in files)
