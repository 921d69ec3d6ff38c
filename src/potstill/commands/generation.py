"""What a generation is made of: teacher, plan, filters, judge; checked before anything is asked."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from datasets import Dataset, DatasetDict

from potstill.audit.contamination import is_copy
from potstill.audit.texts import Texts
from potstill.config.build import build
from potstill.config.text_schema import GenerateConfig
from potstill.data.content import content_hash
from potstill.errors import UserError
from potstill.generation.export import Outcome
from potstill.generation.filters import Filter, apply
from potstill.generation.judge import Judge
from potstill.generation.ledger import Ledger
from potstill.generation.overlap import read_manifest, refuse_overlap, text_hash, texts_of
from potstill.generation.plan import Plan, Prompt
from potstill.generation.protocol import TextTeacher
from potstill.generation.sample import said

log = logging.getLogger(__name__)


@dataclass
class Parts:
    """override: the reason why the teacher is used although its terms do not allow it, or do not say."""

    teacher: TextTeacher
    plan: Plan
    judge: Judge | None
    override: str | None


def assemble(options: GenerateConfig, override: str | None) -> Parts:
    """Raises UserError for what does not fit in data, templates and endpoint, and for prompts that are test items."""
    filters(options)
    source: DatasetDict = build(options.data.source, "data.source")
    table = _first(source["train"], options.generation.limit)
    plan = Plan(table, options.generation, options.teacher.model, options.teacher.revision)
    judge = Judge(options.generation.judge, plan) if options.generation.judge.prompt else None
    test = [prompt.text for prompt in replace(plan, table=source["test"]).prompts()] if "test" in source else []
    plan.left_out = _copies(plan, test, options.data.drop_copies)
    _refuse_test_items(plan, test, options.generation.test_manifest)
    teacher = build(options.teacher.endpoint, "teacher.endpoint", **_of_the_run(options))
    plan.endpoint = teacher.name
    return Parts(teacher, plan, judge, override)


def filters(options: GenerateConfig) -> dict[str, Filter]:
    """Anew for each time that samples are gone through: some remember what they have seen."""
    nodes = options.generation.filters.items()
    return {name: build(node, f"generation.filters.{name}") for name, node in nodes if node}


def outcomes(options: GenerateConfig, parts: Parts, ledger: Ledger) -> Iterator[Outcome]:
    """Of every row, what the filters keep and drop; without the judge, who looks at what they keep."""
    chosen = filters(options)
    for _, samples, missing in said(parts.plan, ledger):
        kept, dropped = apply(chosen, samples)
        yield kept, dropped, missing


def _first(table: Dataset, limit: int | None) -> Dataset:
    """So many rows, in their order: the first by the hash of their content, whatever else the table holds."""
    if limit is None or limit >= len(table):
        return table
    hashes = sorted((content_hash(dict(row)), place) for place, row in enumerate(table))  # type: ignore[arg-type]
    return table.select(sorted(place for _, place in hashes[:limit]))


def _of_the_run(options: GenerateConfig) -> dict[str, object]:
    """What an endpoint is told besides its own options; a local model needs nothing of it."""
    if "base_url" not in options.teacher.endpoint:
        return {}
    limits = options.limits
    return {"api": options.generation.api, "request_s": limits.request_s, "max_connections": limits.maximum}


def _copies(plan: Plan, test: list[str], how: str | None) -> frozenset[int]:
    """Rows whose prompt is that of a test example, exactly or nearly, where that is asked for."""
    if how is None:
        return frozenset()
    if not test:
        problem = "leaves out what stands in the test split, and there is none."
        raise UserError("data.drop_copies", how, problem, "Name it, data.source.test=FILE, or leave this out.")
    found = is_copy(Texts(test), Texts([prompt.text for prompt in plan.prompts()]), how).nonzero()[0].tolist()
    log.info("data.drop_copies=%s: %d of %d rows stand in test, and are not asked.", how, len(found), len(plan.table))
    return frozenset(found)


def _refuse_test_items(plan: Plan, test: list[str], test_manifest: str | None) -> None:
    def asked() -> Iterator[Prompt]:
        return (prompt for prompt in plan.prompts() if prompt.index not in plan.left_out)

    texts, hashes = ((prompt.index, prompt.text) for prompt in asked()), {text_hash(text) for text in test}
    refuse_overlap(texts, hashes, "data.source.test", "Leave them out: data.drop_copies=exact")
    if test_manifest:
        texts = (text for prompt in asked() for text in texts_of(prompt.index, prompt.text, prompt.row))
        refuse_overlap(texts, read_manifest(test_manifest), test_manifest, "Take them out of the prompts.")
