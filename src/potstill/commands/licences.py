"""The licence records that a student inherits: of text it is trained on, and of text its models were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.commands.shared import Source
from potstill.config.schema import TrainConfig
from potstill.generation.terms import RECORDS
from potstill.tracking.manifest import manifest_of


def licence_records(config: TrainConfig, source: Source) -> list[dict[str, Any]]:
    """Each once, in the order of data, teachers, and what the student begins with.

    A student of another run, `<run>/student`, lies beside that run's manifest, which has its records.
    """
    paths = [Path(model.path) for model in (*config.teacher.models.values(), config.student) if model.path]
    runs = [path.parent for path in paths if path.name == "student"]
    found = list(source.licence_records)
    found += [record for run in runs for record in manifest_of(run).get(RECORDS, [])]
    return [record for place, record in enumerate(found) if record not in found[:place]]
