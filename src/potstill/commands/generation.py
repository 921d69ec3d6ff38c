"""What a generation is made of: teacher, plan, filters, judge; checked before anything is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from datasets import DatasetDict

from potstill.config.build import build
from potstill.config.text_schema import GenerateConfig
from potstill.generation.export import Outcome
from potstill.generation.filters import Filter, apply
from potstill.generation.judge import Judge
from potstill.generation.ledger import Ledger
from potstill.generation.overlap import read_manifest, refuse_overlap, text_hash, texts_of
from potstill.generation.plan import Plan
from potstill.generation.protocol import TextTeacher
from potstill.generation.sample import said


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
    teacher = build(options.teacher.endpoint, "teacher.endpoint", **_of_the_run(options))
    plan = Plan(source["train"], options.generation, options.teacher.model, options.teacher.revision, teacher.name)
    judge = Judge(options.generation.judge, plan) if options.generation.judge.prompt else None
    _refuse_test_items(source, plan, options.generation.test_manifest)
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


def _of_the_run(options: GenerateConfig) -> dict[str, object]:
    """What an endpoint is told besides its own options; a local model needs nothing of it."""
    if "base_url" not in options.teacher.endpoint:
        return {}
    limits = options.limits
    return {"api": options.generation.api, "request_s": limits.request_s, "max_connections": limits.maximum}


def _refuse_test_items(source: DatasetDict, plan: Plan, test_manifest: str | None) -> None:
    if "test" in source:
        test = Plan(source["test"], plan.options, plan.model, plan.revision, plan.endpoint)
        hashes = {text_hash(prompt.text) for prompt in test.prompts()}
        refuse_overlap(((prompt.index, prompt.text) for prompt in plan.prompts()), hashes, "data.source.test")
    if test_manifest:
        texts = (text for prompt in plan.prompts() for text in texts_of(prompt.index, prompt.text, prompt.row))
        refuse_overlap(texts, read_manifest(test_manifest), test_manifest)
