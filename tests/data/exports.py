"""An export as `potstill generate` leaves it, without a generation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from potstill.generation.export import Exporter, seal
from potstill.generation.parse import Choice
from potstill.generation.sample import Sample

TERMS = {"model": "m", "train_on_outputs": "yes", "duties": []}


def export(directory: Path, rows: Sequence[dict[str, Any]], **terms: Any) -> str:
    """rows: columns of the export; what is left out is made up. Returns the path of its run."""
    source = Dataset.from_dict({"question": [row["prompt"] for row in rows]})
    samples = [_sample(place, row) for place, row in enumerate(rows)]
    made = Exporter(directory / "out" / "export", source, shard_rows=7).write([(samples, [], [])])
    seal(directory / "out" / "export", {**made, "terms": {**TERMS, **terms}, "override_reason": None, "complete": True})
    return str(directory / "out")


def _sample(place: int, row: dict[str, Any]) -> Sample:
    said = {"answer": None, "rationale": None, "reasoning": None, "finish_reason": "stop", "logprobs": None, **row}
    given: Any = [said.get(name) for name in ("raw", "answer", "rationale", "reasoning", "finish_reason", "logprobs")]
    choice = Choice(*given)
    index, prompt = said.get("row", place), said["prompt"]
    facts: dict[str, Any] = {"row": {"question": prompt}, "prompt": prompt, "gold": None, "request": b""}
    return Sample(index=index, number=said.get("sample", 0), choice=choice, agreement=said.get("agreement"), **facts)
