"""What `potstill mine` and `potstill gain` may be told. As in `schema`, YAML fills these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class MineConfig:
    run: str = MISSING  # directory of a training run whose config names a teacher
    output: str = MISSING  # directory of mined.jsonl, proposals.jsonl, prompts.jsonl, mined.json
    splits: list[str] = field(default_factory=lambda: ["train", "validation"])  # whose failures are mined; pool, too
    held_back: float = 0.5  # of validation: never mined, so that a gain can be measured there
    trust_teacher: bool = False  # without a gold label the teacher is taken to be right
    clusters: int = 20
    encoder: str | None = None  # directory or hub name: distances between its embeddings; null: between TF-IDF
    pool: dict[str, Any] | None = None  # a source whose train split may be proposed
    pick: str = "nearest"  # nearest | random
    budget: int = 200  # proposals
    total: int | None = None  # proposals of all rounds
    template: str | None = None  # Jinja: asks a teacher of text for inputs like those of a cluster
    examples: int = 8  # of a cluster in one prompt
    per_prompt: int = 10  # inputs that one prompt asks for
    test_manifest: str | None = None  # one hash a line, of test items besides the run's own
    seed: int = 0  # of clusters and random picks
    logger: dict[str, Any] | None = None


@dataclass
class GainConfig:
    run: str = MISSING  # the student after a round
    before: str = MISSING  # the student that was mined
    mined: str = MISSING  # what potstill mine wrote between the two
    output: str = MISSING  # directory of gain.json
    alpha: float = 0.05  # a gain whose p-value is above counts as none
    gone: float = 0.05  # share of failures below which the cluster that was worst counts as gone
    logger: dict[str, Any] | None = None
