"""What decides the outcome of a command: its config, the files it names, and the code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

DESCRIPTIONS = ("README.md",)  # a model's card is written, and written again, after the model
_MAX_PATH_LENGTH = 1000  # longer texts are none
_MAX_NAME_LENGTH = 255  # bytes, of each part of a path; file systems refuse even to look for a longer one
_SOURCE = Path(__file__).resolve().parent


def fingerprint(config: dict[str, Any], own: Path) -> str:
    """Hash of `config`, of the content of every local file or directory it names, and of potstill's source.

    own: the command's own directory; paths inside it are outcome, not input. A recipe's directory, which holds it, may
        be moved.
    """
    paths = sorted({path for path in paths_in(config) if not _inside(path, own) and Path(path).exists()})
    content = {path: content_hash(Path(path)) for path in paths}
    text = json.dumps([config, content, _source_hash()], sort_keys=True, default=str)
    return hashlib.sha256(text.replace(str(own.parent), "").encode()).hexdigest()


def paths_in(node: Any) -> Iterator[str]:
    """Every text in `node` that could be a path. Beside a key `root`, relative paths begin there."""
    if isinstance(node, dict):
        root = str(node.get("root") or ".")
        for name, inner in node.items():
            texts = paths_in(inner) if name != "root" else ()
            yield from (os.path.join(root, text) for text in texts)
    elif isinstance(node, list):
        for inner in node:
            yield from paths_in(inner)
    elif isinstance(node, str) and node not in ("", ".", "..") and _could_be_path(node):
        yield node


def _could_be_path(text: str) -> bool:
    parts = text.encode().split(b"/")
    return len(text) < _MAX_PATH_LENGTH and all(len(part) <= _MAX_NAME_LENGTH for part in parts)


def _inside(text: str, directory: Path) -> bool:
    return Path(text).absolute().is_relative_to(directory.absolute())


def content_hash(path: Path, pattern: str = "*") -> str:
    """Hash of a file, or of the names and contents of the files below a directory, less what only describes them."""
    below = (file for file in path.rglob(pattern) if file.is_file() and file.name not in DESCRIPTIONS)
    files = [path] if path.is_file() else sorted(below)
    total = hashlib.sha256()
    for file in files:
        total.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


@cache
def _source_hash() -> str:
    return content_hash(_SOURCE, "*.py")
