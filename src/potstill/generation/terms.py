"""The licence record: under which terms a teacher's text may be trained on, who read them, and when."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from potstill.errors import UserError, nearest_hint

RECORDS = "licence_records"  # their key in mined.json and in the manifest of a training
ANSWERS = ("yes", "no", "conditional", "unknown")
ALLOW = ("yes", "conditional")
REQUIRED = ("provider", "model", "revision", "url", "retrieved", "text", "sha256", "reviewer", "train_on_outputs")
SHORTEST_REASON = 10  # characters
EXAMPLES = {
    "provider": "'Example Ltd'",
    "model": "example-large",
    "revision": "2026-01-31",
    "url": "https://example.com/terms",
    "retrieved": "2026-01-31",
    "text": "terms/example.html",
    "reviewer": "'A. Person'",
    "train_on_outputs": "conditional",
}


@dataclass
class Terms:
    """provider, model, revision: what they apply to. url, retrieved, text, sha256: which text that is, when it was
    saved and where, and its hash. reviewer: who read it. duties: what it asks of those who train on outputs."""

    provider: str | None = None
    model: str | None = None
    revision: str | None = None
    url: str | None = None
    retrieved: str | None = None
    text: str | None = None
    sha256: str | None = None
    reviewer: str | None = None
    train_on_outputs: Any = None  # YAML reads a bare yes or no as true or false
    duties: list[str] = field(default_factory=list)
    override_reason: str | None = None


def check_terms(terms: Terms, model: str, revision: str | None) -> str | None:
    """The reason of an override, where the terms say `no` or nothing and there is one.

    Raises UserError where a field is empty, does not fit the model or the saved text, or forbids the training.
    """
    terms.train_on_outputs = {True: "yes", False: "no"}.get(terms.train_on_outputs, terms.train_on_outputs)
    _filled(terms)
    _same("model", terms.model, "teacher.model", model)
    _same("revision", terms.revision, "teacher.revision", revision)
    _saved_text(terms)
    if terms.train_on_outputs not in ANSWERS:
        problem, fix = "is none of the answers.", nearest_hint(terms.train_on_outputs, ANSWERS)
        raise UserError("teacher.terms.train_on_outputs", terms.train_on_outputs, problem, fix)
    if terms.train_on_outputs == "conditional" and not terms.duties:
        problem = "is empty, and the terms allow training under conditions only."
        raise UserError("teacher.terms.duties", terms.duties, problem, "List them: teacher.terms.duties=['...']")
    return _override(terms)


def licence_record(export: Mapping[str, Any]) -> dict[str, Any]:
    """What whoever trains on an export has to keep: its terms, the reason of an override, and which export it was.

    export: its manifest. Raises UserError where its terms do not allow the training and no reason was given.
    """
    record = {**export["terms"], "override_reason": export["override_reason"], "export": export["hash"]}
    if record["train_on_outputs"] not in ALLOW and not record["override_reason"]:
        problem = f"holds text whose terms answer {record['train_on_outputs']}: it may not be trained on."
        raise UserError("data.source.path", record["model"], problem, "Generate again, with terms that allow it.")
    return record


def _filled(terms: Terms) -> None:
    missing = [name for name in REQUIRED if not str(getattr(terms, name) or "").strip()]
    if missing:
        problem = "is empty, and nothing is asked of a teacher before its terms are on record."
        key = f"teacher.terms.{missing[0]}"
        fix = f"Missing: {', '.join(missing)}. Read the terms, save their text, and fill them in:"
        example = EXAMPLES.get(missing[0], f"$(sha256sum {terms.text} | cut -c1-64)")
        raise UserError(key, None, problem, f"{fix} {key}={example}")
    try:
        date.fromisoformat(str(terms.retrieved))
    except ValueError as error:
        raise UserError("teacher.terms.retrieved", terms.retrieved, "is no date.", "Write 2026-01-31") from error
    if not re.match(r"\w+://|file:", str(terms.url)):
        problem, fix = "is no address.", "For a text that came with the weights: teacher.terms.url=file:LICENSE"
        raise UserError("teacher.terms.url", terms.url, problem, fix)


def _same(name: str, said: str | None, key: str, value: str | None) -> None:
    if said != value:
        problem = f"is not {key}={value}: these are the terms of another model."
        raise UserError(f"teacher.terms.{name}", said, problem, f"Review the terms of {value}, or set {key}={said}")


def _saved_text(terms: Terms) -> None:
    path = Path(str(terms.text)).expanduser()
    if not path.is_file():
        fix = "Save the text that was read, and name the file."
        raise UserError("teacher.terms.text", terms.text, f"no such file: {path.absolute()}", fix)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != str(terms.sha256).lower():
        problem = f"is not the hash of {path}, which is {found}: it is not the text that was reviewed."
        raise UserError("teacher.terms.sha256", terms.sha256, problem, "Review that text, then give its hash.")


def _override(terms: Terms) -> str | None:
    """Where it is needed; a reason for nothing is refused, so that one that stands in a manifest means something."""
    key, reason = "teacher.terms.override_reason", (terms.override_reason or "").strip()
    if terms.train_on_outputs in ALLOW:
        if reason:
            problem = f"overrides nothing: train_on_outputs is {terms.train_on_outputs}."
            raise UserError(key, reason, problem, "Leave it out.")
        return None
    if len(reason) < SHORTEST_REASON:
        problem = "so the outputs may not be trained on."
        fix = f"Choose another teacher. If there is a reason, it goes on record: {key}='...'"
        raise UserError("teacher.terms.train_on_outputs", terms.train_on_outputs, problem, fix)
    return reason
