"""Kept samples as sealed parquet shards, dropped ones as a list with reasons, and a manifest that vouches for both."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from potstill.generation.protocol import canonical
from potstill.generation.sample import Sample, Unanswered
from potstill.tracking.manifest import write_json
from potstill.tracking.storage import not_written, written_aside

log = logging.getLogger(__name__)

MANIFEST, DROPPED = "export.json", "dropped.jsonl"
FORMAT = 1

OURS = pa.schema(
    [
        ("row", pa.int64()),
        ("sample", pa.int64()),
        *((name, pa.string()) for name in ("prompt", "raw", "answer", "rationale", "reasoning", "gold")),
        *((name, pa.string()) for name in ("finish_reason", "logprobs")),
        ("agreement", pa.float64()),
        ("request", pa.string()),
    ]
)
Outcome = tuple[list[Sample], list[tuple[Sample, str]], list[Unanswered]]


@dataclass
class Exporter:
    """Goes through outcomes once and keeps one shard in memory. source: columns of its rows go along."""

    directory: Path
    source: Dataset
    shard_rows: int
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._names = {name: f"source_{name}" if name in OURS.names else name for name in self.source.column_names}
        arrow = self.source.features.arrow_schema
        self._schema = pa.schema([*OURS, *(arrow.field(name).with_name(new) for name, new in self._names.items())])
        self._digest = hashlib.sha256()

    def write(self, outcomes: Iterable[Outcome]) -> dict[str, Any]:
        """The manifest of what was written; `seal` it. Shards that a longer export left behind are removed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        shards = list(_written(self.directory / DROPPED, self._shards(outcomes)))
        for file in self.directory.glob("train-*.parquet"):
            if file.name not in {shard["file"] for shard in shards}:
                file.unlink()
        return {
            "format": FORMAT,
            "rows": self.counts["kept"],
            "hash": self._digest.hexdigest(),
            "counts": dict(sorted(self.counts.items())),
            "shards": shards,
            "dropped": {"file": DROPPED, "sha256": file_hash(self.directory / DROPPED)},
        }

    def _shards(self, outcomes: Iterable[Outcome]) -> Iterator[tuple[dict[str, Any] | None, list[dict[str, Any]]]]:
        """Shards as they are written, and what is dropped on the way."""
        rows: list[dict[str, Any]] = []
        number = 0
        for kept, dropped, missing in outcomes:
            self.counts.update({"kept": len(kept)})
            rows += [self._row(sample) for sample in kept]
            yield None, [*self._dropped(dropped), *self._missing(missing)]
            if len(rows) >= self.shard_rows:
                yield self._write_shard(number, rows), []
                rows, number = [], number + 1
        if rows or not number:
            yield self._write_shard(number, rows), []

    def _row(self, sample: Sample) -> dict[str, Any]:
        row = sample.columns() | {new: sample.row[name] for name, new in self._names.items()}
        self._digest.update(canonical({name: row[name] for name in OURS.names}).encode())
        return row

    def _dropped(self, dropped: Iterable[tuple[Sample, str]]) -> Iterator[dict[str, Any]]:
        for sample, reason in dropped:
            self.counts[f"dropped/{reason.partition(':')[0]}"] += 1
            yield {"reason": reason, **sample.columns()}

    def _missing(self, missing: Iterable[Unanswered]) -> Iterator[dict[str, Any]]:
        for each in missing:
            self.counts[f"unanswered/{each.reason.partition(':')[0]}"] += 1
            yield {"reason": each.reason, "row": each.index, "prompt": each.prompt, "request": each.request.hex()}

    def _write_shard(self, number: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
        path = self.directory / f"train-{number:05d}.parquet"
        table = pa.Table.from_pylist(rows, schema=self._schema)
        _write(path, lambda file: pq.write_table(table, file))
        return {"file": path.name, "rows": len(rows), "sha256": file_hash(path)}


def seal(directory: Path, manifest: Mapping[str, Any]) -> None:
    write_json(directory / MANIFEST, manifest)


def damage(directory: Path) -> str | None:
    """What of an export is not as its manifest says; None where all is, or there is no export yet."""
    if not (directory / MANIFEST).is_file():
        return None
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    for each in [*manifest["shards"], manifest["dropped"]]:
        path = directory / each["file"]
        if not path.is_file():
            return f"{each['file']} is missing"
        if file_hash(path) != each["sha256"]:
            return f"{each['file']} is not as it was written"
    return None


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _written(
    path: Path, parts: Iterator[tuple[dict[str, Any] | None, list[dict[str, Any]]]]
) -> Iterator[dict[str, Any]]:
    """The shards among `parts`; the lists beside them go into `path`, a line each."""
    with written_aside(path) as file:
        for shard, lines in parts:
            for line in lines:
                file.write((canonical(line) + "\n").encode())
            if shard:
                yield shard


def _write(path: Path, write: Callable[[Any], None]) -> None:
    try:
        with written_aside(path) as file:
            write(file)
    except OSError as error:
        raise not_written(path, error) from error
