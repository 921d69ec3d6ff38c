"""A cache of signals on disk: whose answers it holds, in what form, and the directory they lie in."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill.errors import UserError
from potstill.signals.codecs import Codec
from potstill.signals.store import Store
from potstill.tracking.storage import written_aside

log = logging.getLogger(__name__)

FORMAT = 1  # of files and records; raised with every change of what their bytes mean
MANIFEST = "manifest.json"
Identity = dict[str, Any]

# What `explain` calls the fields of an identity, the most telling first: the tokenizer's hash holds its template.
MEANINGS = {
    "format": "the format of the files",
    "task": "the task",
    "architecture": "the teacher's architecture",
    "weights": "the teacher's weights",
    "labels": "the labels, or their order",
    "chat_template": "the chat template",
    "tokenizer": "the tokenizer",
    "stored": "what is stored, or how",
}


@dataclass
class Cache:
    """codecs: by part of the signal (`logits`, `embeddings`, `tap:<module path>`), how it is stored; in the order in
    which they follow each other in a record.
    """

    store: Store
    codecs: Mapping[str, Codec]
    identity: Identity

    @property
    def directory(self) -> Path:
        return self.store.directory

    def describe(self, layouts: Mapping[str, Any]) -> dict[str, Any]:
        """Write down, once, what is kept here and what it takes. layouts: of the parts."""
        taken = {part: codec.bytes_per_row(layouts[part]) for part, codec in self.codecs.items()}
        if not (self.directory / MANIFEST).exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            manifest = {"identity": self.identity, "bytes_per_row": taken, "created_at": time.time()}
            with written_aside(self.directory / MANIFEST) as file:
                file.write((json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())
        return taken


def open_cache(root: Path, identity: Identity, codecs: Mapping[str, Codec], *, write: bool) -> Cache:
    """The cache below `root` that holds the answers of just this teacher, in just this form.

    Raises UserError where it says of itself that it is another; and, unless it may be written, where there is none: it
    names what is different in the one that is most alike.
    """
    name = name_of(identity)
    directory = root / name
    if (directory / MANIFEST).exists():
        differing = differences(read_manifest(directory)["identity"], identity)
        if differing:
            problem = f"is not what its name says: {explain(differing)} differ."
            raise UserError("teacher.cache.dir", str(directory), problem, f"Remove it: rm -r {directory}")
        with suppress(PermissionError):
            os.utime(directory / MANIFEST)  # used now, for `potstill cache prune`
    elif not write:
        raise UserError("teacher.cache.dir", str(root), _absent(root, identity), "Fill it first: potstill cache ...")
    elif others := nearest(root, identity):
        log.info("A new cache, %s: it is not %s, from which it differs in %s.", name, others[0], explain(others[1]))
    return Cache(Store(directory, {"cache": name, "format": FORMAT}), dict(sorted(codecs.items())), identity)


def name_of(identity: Identity) -> str:
    """A directory's name: what a person looks for, then the hash of everything."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    stored = "+".join(sorted({part.split(":")[0] for part in identity["stored"]}))
    return f"{identity['task']}-{stored}-{digest}"


def read_manifest(directory: Path) -> dict[str, Any]:
    """Raises UserError where there is none that can be read."""
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        if not isinstance(manifest.get("identity"), dict):
            raise ValueError("it names no teacher")
    except (OSError, ValueError, AttributeError) as error:
        problem = f"cannot be read: {error}. Nobody can tell whose signals these are."
        raise UserError("teacher.cache.dir", str(path), problem, f"Remove it: rm -r {directory}") from error
    return manifest


def caches_in(root: Path) -> list[Path]:
    """Directories that hold signals, whether or not they say whose."""
    found = {path.parent for pattern in (MANIFEST, "*.signals") for path in root.glob(f"*/{pattern}")}
    return sorted(found)


def differences(one: Identity, other: Identity) -> list[str]:
    """The fields in which two identities differ, the most telling first."""
    names = [*MEANINGS, *sorted((one.keys() | other.keys()) - MEANINGS.keys())]
    return [name for name in names if one.get(name) != other.get(name)]


def explain(names: list[str]) -> str:
    return ", ".join(f"{MEANINGS.get(name, name)} ({name})" for name in names)


def nearest(root: Path, identity: Identity) -> tuple[str, list[str]] | None:
    """The cache that differs in the fewest fields, and these."""
    found = [
        (path.name, differences(read_manifest(path)["identity"], identity))
        for path in caches_in(root)
        if (path / MANIFEST).exists()
    ]
    return min(found, key=lambda each: len(each[1]), default=None)


def _absent(root: Path, identity: Identity) -> str:
    others = nearest(root, identity)
    if others is None:
        return "holds no signals."
    return f"holds no signals of this teacher. The nearest, {others[0]}, differs in {explain(others[1])}."
