"""Sections of a report as Markdown, for the model card."""

from __future__ import annotations

import re
from collections.abc import Iterator

from potstill.reporting.sections import Section, Table

SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$])")
OUTCOMES = {"pass": "passes", "fail": "**fails**", "not_enough_evidence": "*not enough evidence*"}


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def section_markdown(section: Section) -> str:
    """Heading, words, tables and commands; plots are left to the page, their numbers stand in the tables."""
    parts = [f"## {escaped(section.heading)}", *(escaped(word) for word in section.words)]
    parts += [table_markdown(table) for table in section.tables]
    parts += ["\n".join(f"    {line}" for line in section.code)] if section.code else []
    return "\n\n".join(parts)


def table_markdown(table: Table) -> str:
    return "\n".join([f"**{escaped(table.caption)}**", "", *_lines(table)])


def _lines(table: Table) -> Iterator[str]:
    yield _line([escaped(column.name) for column in table.columns])
    yield _line(["---:" if column.kind == "number" else "---" for column in table.columns])
    for texts in table.texts():
        yield _line([OUTCOMES.get(text) or escaped(text) for text in texts])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
