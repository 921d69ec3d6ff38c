"""What is kept of one model's pass over an evaluation set."""

# E examples, N rows

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from potstill.data.batch import IGNORE

NO_ANSWER = -1  # the class of a row whose logits hold a nan: it is right nowhere


@dataclass(frozen=True)
class Scores:
    """One model on N rows of E examples.

    top1: most probable class or token, `[N]`; `NO_ANSWER` where a logit is nan.
    nll: negative log-likelihood of the gold label in nats, `[N]`; `nan` where there is none.
    label: gold label, `[N]`; `IGNORE` where there is none.
    example: number of the example a row belongs to, in evaluation order, `[N]`.
    confidence: probability of the most probable class, `[N]`. entropy: of all classes, in nats, `[N]`.
    kl: KL(teacher || model) in nats, `[N]`. top5: share of the teacher's five first classes among the model's, `[N]`.
        Both `nan` without a teacher.
    """

    top1: NDArray[np.int64]
    nll: NDArray[np.float64]
    label: NDArray[np.int64]
    example: NDArray[np.int64]
    confidence: NDArray[np.float64]
    entropy: NDArray[np.float64]
    kl: NDArray[np.float64]
    top5: NDArray[np.float64]
    num_examples: int

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Rows with a gold label, `[N]`."""
        return self.label != IGNORE

    @property
    def right(self) -> NDArray[np.bool_]:
        """Rows whose most probable class is the gold one, `[N]`."""
        return self.top1 == self.label

    def where(self, rows: NDArray[np.bool_]) -> Scores:
        """The chosen rows; examples keep their numbers."""
        return replace(self, **{name: getattr(self, name)[rows] for name in COLUMNS})

    @staticmethod
    def joined(parts: list[Scores]) -> Scores:
        """The parts in their order, each part's examples numbered after those of the parts before it."""
        first_examples = np.cumsum([0, *(part.num_examples for part in parts)])
        numbered = [
            replace(part, example=part.example + first) for part, first in zip(parts, first_examples, strict=False)
        ]
        empty = {name: np.empty(0, np.int64 if name in ("top1", "label", "example") else float) for name in COLUMNS}
        columns = {name: np.concatenate([empty[name], *(getattr(part, name) for part in numbered)]) for name in COLUMNS}
        return Scores(
            **{name: values.astype(empty[name].dtype) for name, values in columns.items()},
            num_examples=int(first_examples[-1]),
        )


COLUMNS = tuple(each.name for each in fields(Scores) if each.name != "num_examples")
