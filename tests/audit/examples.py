"""Sentences that are alike as little as sentences are, and clinc150 where there is a folder of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SYLLABLES = [first + second for first in "bdfgklmnprst" for second in ("a", "e", "i", "o", "u")]


def sentences(num: int, seed: int, num_words: int = 10) -> list[str]:
    """Of made-up words of two or three syllables; no two share a run of words but by accident."""
    generator = np.random.default_rng(seed)
    words = ["".join(generator.choice(SYLLABLES, 2 + number % 2)) for number in range(400)]
    return [" ".join(generator.choice(words, num_words)) for _ in range(num)]


def clinc150(shared: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (shared / "data/clinc150" / f"{split}.jsonl").read_text().splitlines()]


def column(rows: list[dict[str, str]], name: str) -> list[str]:
    return [row[name] for row in rows]
