"""Prompts that are test items: found by their words, whatever their case, spaces and punctuation.

    python -m potstill.generation.overlap test.jsonl COLUMN > test_manifest.txt

writes one hash a line. Whoever keeps test items to themselves can hand that file on, and no item.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from potstill.data.content import content_hash
from potstill.errors import UserError

HASH = re.compile(r"[0-9a-f]{32}")
MAX_SHOWN = 5


def text_hash(text: str) -> str:
    return content_hash(" ".join(re.findall(r"\w+", text.casefold())))


def read_manifest(path: str, key: str = "generation.test_manifest") -> set[str]:
    """Raises UserError under `key` where there is no such file, or a line of it is no hash."""
    file = Path(path).expanduser()
    if not file.is_file():
        fix = "Write one: python -m potstill.generation.overlap FILE COLUMN > test_manifest.txt"
        raise UserError(key, path, f"no such file: {file.absolute()}", fix)
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines or not all(HASH.fullmatch(line) for line in lines):
        fix = "Write it: python -m potstill.generation.overlap FILE COLUMN > test_manifest.txt"
        raise UserError(key, path, "is not one hash a line.", fix)
    return set(lines)


def refuse_overlap(texts: Iterable[tuple[int, str]], test: set[str], where: str, fix: str) -> None:
    """texts: of a row, whatever of it could be a test item. where: what `test` is made of."""
    found = list(dict.fromkeys(index for index, text in texts if text_hash(text) in test))
    if found:
        shown = ", ".join(map(str, found[:MAX_SHOWN])) + (", ..." if len(found) > MAX_SHOWN else "")
        problem = f"of the rows are test items of {where}: {shown}. What is trained on them cannot be tested there."
        raise UserError("data.source.train", len(found), problem, fix)


def texts_of(index: int, prompt: str, row: Mapping[str, object]) -> Iterator[tuple[int, str]]:
    """The prompt, and every column of text."""
    yield index, prompt
    yield from ((index, value) for value in row.values() if isinstance(value, str) and value.strip())


def main(path: str, column: str) -> None:
    from potstill.data.sources import files

    for value in files(train=path)["train"][column]:
        print(text_hash(str(value)))


if __name__ == "__main__":
    main(*sys.argv[1:])
