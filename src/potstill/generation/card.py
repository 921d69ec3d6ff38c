"""README.md of an export: what it is, under which terms, what was dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from potstill.generation.terms import Terms

SHOWN = ("provider", "model", "revision", "url", "retrieved", "sha256", "reviewer", "train_on_outputs")


def card(manifest: Mapping[str, Any], terms: Terms, override: str | None) -> str:
    """Markdown. override: the reason why outputs are used although the terms do not allow it, or do not say."""
    lines = ["# Text of a teacher", "", f"{manifest['rows']:,} rows. Hash of the content: `{manifest['hash']}`.", ""]
    if not manifest["complete"]:
        lines += ["**Not complete:** the generation was stopped before every row was asked for.", ""]
    lines += ["## Terms", "", *(f"- {name}: {asdict(terms)[name]}" for name in SHOWN)]
    lines += [f"- duty: {duty}" for duty in terms.duties]
    if override:
        lines += ["", f"**Used against the terms' answer `{terms.train_on_outputs}`. Reason given: {override}**"]
    lines += ["", "## Counts", "", "| what | samples |", "|---|---|"]
    lines += [f"| {name} | {count:,} |" for name, count in manifest["counts"].items()]
    return "\n".join([*lines, "", f"Each one that was dropped, with its reason: `{manifest['dropped']['file']}`.", ""])
