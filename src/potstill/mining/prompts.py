"""Prompts that ask a teacher of text for new inputs like those of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from potstill.generation.templates import RowTemplate
from potstill.mining.clusters import Clusters

COLUMNS = ("name", "terms", "labels", "confusions", "examples", "count")


def prompts(
    template: str,
    clusters: Clusters,
    about: Sequence[Mapping[str, Any]],
    failures: Sequence[Mapping[str, Any]],
    asked: Sequence[int],
    *,
    num_examples: int,
    per_prompt: int,
) -> list[dict[str, Any]]:
    """asked: new inputs of each cluster, which one prompt asks `per_prompt` of at most; the examples go round.

    The template sees name, terms, labels and confusions of the cluster, `examples` (failures, with text and gold), and
    `count`, how many inputs to write. Raises UserError where it names anything else.
    """
    written = RowTemplate("template", template, COLUMNS)
    rows = []
    for number, num_asked in enumerate(asked):
        members = [failures[place] for place in clusters.members(number)]
        for turn, start in enumerate(range(0, num_asked, per_prompt)):
            count = min(per_prompt, num_asked - start)
            examples = _turn(members, turn * num_examples, num_examples)
            facts = {**about[number], "examples": examples, "count": count}
            text = written.render({name: facts[name] for name in COLUMNS}, len(rows))
            rows.append({"text": text, "cluster": number, "count": count})
    return rows


def check_template(template: str) -> None:
    """Raises UserError for a template that is none, before anything is read."""
    RowTemplate("template", template, COLUMNS)


def _turn(members: Sequence[Mapping[str, Any]], start: int, num: int) -> list[Mapping[str, Any]]:
    """`num` members from `start` on, from the beginning again where they end; none twice."""
    num = min(num, len(members))
    return [members[(start + place) % len(members)] for place in range(num)]
