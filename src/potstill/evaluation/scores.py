"""What is kept of one model's pass over an evaluation set."""

# E examples, N rows

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potstill.data.batch import IGNORE


@dataclass(frozen=True)
class Scores:
    """One model on N rows of E examples.

    top1: most probable class or token, `[N]`.
    nll: negative log-likelihood of the gold label in nats, `[N]`; `nan` where there is none.
    label: gold label, `[N]`; `IGNORE` where there is none.
    example: number of the example a row belongs to, in evaluation order, `[N]`.
    """

    top1: NDArray[np.int64]
    nll: NDArray[np.float64]
    label: NDArray[np.int64]
    example: NDArray[np.int64]
    num_examples: int

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows with a gold label, `[N]`."""
        return self.label != IGNORE

    def where(self, rows: NDArray[np.bool_]) -> Scores:
        """The chosen rows; examples keep their numbers."""
        return Scores(self.top1[rows], self.nll[rows], self.label[rows], self.example[rows], self.num_examples)

    @staticmethod
    def joined(parts: list[Scores]) -> Scores:
        """The parts in their order, each part's examples numbered after those of the parts before it."""
        if not parts:
            return Scores(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64), 0)
        first_examples = np.cumsum([0, *(part.num_examples for part in parts)])
        return Scores(
            top1=np.concatenate([part.top1 for part in parts]),
            nll=np.concatenate([part.nll for part in parts]),
            label=np.concatenate([part.label for part in parts]),
            example=np.concatenate([part.example + first for part, first in zip(parts, first_examples, strict=False)]),
            num_examples=int(first_examples[-1]),
        )
