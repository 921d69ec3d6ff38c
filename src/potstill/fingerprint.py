"""What decides the outcome of a command: its config, the files it names, and the code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).resolve().parent


def fingerprint(config: dict[str, Any], own: Path) -> str:
    """Hash of `config`, of the content of every local file or directory it names, and of potstill's source.

    own: the command's own directory; paths inside it are outcome, not input. A recipe's directory, which holds it, may
        be moved.
    """
    texts = [text for text in _texts(config) if not _inside(text, own)]
    paths = sorted({text for text in texts if text not in (".", "..") and Path(text).exists()})
    content = {path: _content_hash(Path(path)) for path in paths}
    text = json.dumps([config, content, _source_hash()], sort_keys=True, default=str)
    return hashlib.sha256(text.replace(str(own.parent), "").encode()).hexdigest()


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _texts(inner)
    elif isinstance(node, str) and node and len(node) < 1000:
        yield node


def _inside(text: str, directory: Path) -> bool:
    return Path(text).absolute().is_relative_to(directory.absolute())


def _content_hash(path: Path, pattern: str = "*") -> str:
    files = [path] if path.is_file() else sorted(file for file in path.rglob(pattern) if file.is_file())
    total = hashlib.sha256()
    for file in files:
        total.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


@cache
def _source_hash() -> str:
    return _content_hash(_SOURCE, "*.py")
