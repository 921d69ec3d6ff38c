"""Pairs of texts of the same label, from texts that have one each."""

# N examples

from __future__ import annotations

from typing import Any

import numpy as np

from potstill.data.batch import IGNORE


def partners(labels_N: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """For every example another one of its label, `[N]`, drawn by (seed, epoch) alone.

    An example is its own partner where it has no label, or nobody shares it.
    """
    generator = np.random.default_rng([seed, epoch, 1])  # the order of the batches is drawn from [seed, epoch]
    order_N = np.argsort(labels_N, kind="stable")
    _, first, size = np.unique(labels_N[order_N], return_index=True, return_counts=True)
    first_N, size_N = np.repeat(first, size), np.repeat(size, size)
    step_N = generator.integers(1, np.maximum(size_N, 2))
    partner_N = np.empty_like(order_N)
    partner_N[order_N] = order_N[first_N + (np.arange(len(order_N)) - first_N + step_N) % size_N]
    return np.where(labels_N == IGNORE, np.arange(len(labels_N)), partner_N)


def joined(row: dict[str, Any], partner: dict[str, Any]) -> dict[str, Any]:
    """One example of the texts of two; all else is the first's."""
    return {name: value + partner[name] if isinstance(value, list) else value for name, value in row.items()}
