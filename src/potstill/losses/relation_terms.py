"""Terms on how the rows of a batch lie to each other."""

# N rows, C classes; P attended positions or images, D width

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from potstill.errors import UserError, nearest_hint
from potstill.losses import relation
from potstill.losses.geometry import flat
from potstill.losses.hidden import POOLINGS, pool
from potstill.losses.padding import padded
from potstill.losses.tap_terms import TapTerm
from potstill.losses.terms import Term


class Coupled:
    """What the terms on relations share: a row's value depends on the other rows of the micro-batch.

    couples_rows: how a batch is cut into micro-batches, or over ranks, changes loss and gradient: it must not be.
    min_rows: a batch of fewer rows (the last of an epoch may be one) has no relations: its value is 0.
    """

    couples_rows: ClassVar[bool] = True
    min_rows: ClassVar[int] = 2

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """One value a row, `[N]`, of features `[N, ...]` whose widths may differ."""
        return self.relate(student, teacher) if len(student) >= self.min_rows else 0.0 * flat(student).sum(dim=1)

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        """One value a row, `[N]`, of at least `min_rows` rows."""
        raise NotImplementedError


class Triples(Coupled):
    """What the terms on triples of rows share: memory that grows as the cube of the rows."""

    min_rows = 3
    max_bytes: ClassVar[float] = 16e9  # a thousand rows; more is a mistake, or a batch of tokens
    width = 0  # of a row, the wider model's, flat; seen in prepare

    def see(self: Any, rows: Tensor) -> None:
        """Note the width of `rows`. Raises UserError where they alone are too many."""
        self.width = max(self.width, rows.shape[1:].numel())
        self.check_rows({self.rows: len(rows)})

    def check_rows(self: Any, num_rows: Mapping[str, int]) -> None:
        """Directions are `[N, N, D]`, angles `[N, N, N]`: in float32, of two models, and for the backward pass."""
        count = num_rows[self.rows]
        num_bytes = 4 * 4 * count**2 * (count + self.width)
        if num_bytes > self.max_bytes:
            problem = (
                f"takes all triples of the {count:,} rows of a batch, {num_bytes / 1e9:,.0f} GB (at most "
                f"{self.max_bytes / 1e9:.0f})."
            )
            fix = f"Set a smaller data.batch_size, or leave {self.name} out: distances alone grow as the square."
            raise UserError(f"loss.term.{self.name}", type(self).__name__, problem, fix)


class RKDDistance(Coupled, Term):
    """Distances of pairs of rows of logits, in units of their mean (`relation.rkd_distance`), over scored rows.

    The value of a row depends on how the batch is cut.
    """

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return self.compare(student_logits, teacher_logits)

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.rkd_distance(student, teacher)


class RKDAngle(Triples, RKDDistance):
    """Angles of triples of rows of logits (`relation.rkd_angle`), over scored rows; memory grows as their cube.

    For classification: the tokens of a language model's batch have too many triples. The value of a row depends on how
    the batch is cut.
    """

    def prepare(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        self.see(student_logits)
        self.see(teacher_logits)

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.rkd_angle(student, teacher)


@dataclass(eq=False, repr=False)
class TapRelation(Coupled, TapTerm):
    """Base of the terms that compare relations among examples at two taps. Depends on how the batch is cut.

    position: what stands for a text: its `first` position, as BERT has it, its `last`, as a causal model has it, or the
        `mean`. Images are compared as they are, one vector or map each.
    """

    rows = "examples"

    position: str = "first"

    def validate(self) -> None:
        super().validate()
        if self.position not in POOLINGS:
            self.refuse("position", "is no choice of a position.", nearest_hint(self.position, POOLINGS))

    def prepare(
        self,
        student_hidden: dict[str, Tensor],
        teacher_hidden: dict[str, Tensor],
        labels: Tensor,
        lengths: Tensor | None,
    ) -> None:
        for student, teacher in self.pairs(student_hidden, teacher_hidden) if lengths is None else ():
            if len(student) != len(labels):
                problem = f"relates examples, of which there are {len(labels)}"
                self.refuse_pair("student_tap", student, teacher, problem, "Tap modules that give one value an image.")

    def compare_within(self, student: Tensor, teacher: Tensor, lengths: Tensor | None) -> Tensor:
        return self.compare(*(self.examples(each, lengths) for each in (student, teacher)))

    def examples(self, hidden: Tensor, lengths: Tensor | None) -> Tensor:
        """What a tap gives, one row an example, `[B, ...]`."""
        return hidden if lengths is None else pool(*padded(hidden, lengths), self.position)


class SimilarityPreserving(TapRelation):
    """Similarities of examples (`relation.similarity_preserving`), over examples. Depends on how the batch is cut."""

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.similarity_preserving(student, teacher)


class PKT(TapRelation):
    """Neighbourhoods of examples (`relation.pkt`), over examples. Depends on how the batch is cut."""

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.pkt(student, teacher)


class HiddenRKDDistance(TapRelation):
    """Distances of pairs of examples (`relation.rkd_distance`), over examples. Depends on how the batch is cut."""

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.rkd_distance(student, teacher)


class HiddenRKDAngle(Triples, TapRelation):
    """Angles of triples of examples (`relation.rkd_angle`), over examples. Depends on how the batch is cut."""

    def prepare(
        self,
        student_hidden: dict[str, Tensor],
        teacher_hidden: dict[str, Tensor],
        labels: Tensor,
        lengths: Tensor | None,
    ) -> None:
        super().prepare(student_hidden, teacher_hidden, labels, lengths)
        for pair in self.pairs(student_hidden, teacher_hidden):
            for hidden in pair:
                self.see(self.examples(hidden, lengths))

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.rkd_angle(student, teacher)


@dataclass(eq=False, repr=False)
class CorrelationCongruence(TapRelation):
    """Kernel values of pairs of examples (`relation.correlation_congruence`), over examples.

    gamma, order: of the kernel; `order` null is the Gaussian itself. Depends on how the batch is cut.
    """

    gamma: float = 0.4
    order: int | None = 2

    def validate(self) -> None:
        super().validate()
        self.require_number("gamma", "a finite number > 0", lambda gamma: gamma > 0.0)
        if self.order is not None:
            self.require_number("order", "a whole number >= 1, or null", lambda order: order >= 1 and order % 1 == 0)

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.correlation_congruence(student, teacher, gamma=self.gamma, order=self.order)


class CKA(Coupled, TapTerm):
    """1 - linear centred kernel alignment of two taps (`relation.linear_cka`), over attended positions or images.

    The batch's one value stands in every row. It depends on how the batch is cut.
    """

    def relate(self, student: Tensor, teacher: Tensor) -> Tensor:
        return relation.cka_distance(student, teacher)

    def match(self, student: Tensor, teacher: Tensor) -> None:
        if len(student) != len(teacher):
            self.refuse_pair(
                "student_tap", student, teacher, "needs equally many rows", "Tap modules of the same kind."
            )
