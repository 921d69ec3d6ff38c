"""Terms: named, weighted parts of an objective. Each binds a pure loss to the fields of a Step, by name.

A new term is a subclass of `Term` and a file `conf/loss/term/<name>.yaml` that names it in `_target_`.
"""

# N rows, C classes, P attended positions (or images), D width

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NoReturn

from torch import Tensor, nn

from potstill.errors import UserError, nearest_hint
from potstill.losses import divergence, hidden, response
from potstill.losses.precision import upcast
from potstill.losses.projection import projection, without_width

Rows = Literal["labelled", "scored", "positions"]


class Term(nn.Module):
    """One part of the objective: `forward` asks for fields of Step by the names of its parameters.

    It returns one value a row, `[rows]`, differentiable in the student's fields; the objective divides and weighs.

    name: the key under `loss.term`, given by the objective.
    rows: what its mean is taken over: `labelled` rows, all `scored` rows, or attended `positions` (images: one each).
        Rows that do not count are left out or have the value 0.
    student_taps, teacher_taps: module paths whose outputs it needs in `student_hidden` and `teacher_hidden`.
    """

    rows: Rows = "scored"
    student_taps: tuple[str, ...] = ()
    teacher_taps: tuple[str, ...] = ()

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.name = type(self).__name__
        self.weight = weight

    def validate(self) -> None:
        """Refuse impossible options. Raises UserError; called by the objective once the term knows its name."""
        self.require_number("weight", "a finite number >= 0", lambda weight: weight >= 0.0)

    def prepare(self) -> None:
        """See one sample Step before training: create what depends on widths, refuse what cannot match (UserError).

        Overrides ask for fields of Step by name, as `forward` does.
        """

    def refuse(self, option: str, problem: str, fix: str) -> NoReturn:
        """Raise a UserError about one of the term's options."""
        raise UserError(f"loss.term.{self.name}.{option}", getattr(self, option), problem, fix)

    def require_number(self, option: str, expected: str, accepts: Callable[[float], bool]) -> None:
        """Refuse an option that is no finite number, or one that `accepts` does not."""
        value = getattr(self, option)
        if isinstance(value, str):  # YAML reads 1e-5 as text
            self.refuse(option, f"is text; it must be {expected}.", "Write a number with a point, as in 1.0e-5.")
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not accepts(value):
            self.refuse(option, f"must be {expected}.", f"Write loss.term.{self.name}.{option}=1.0, for example.")


class CrossEntropy(Term):
    """Cross-entropy of the gold label (`response.cross_entropy`), over labelled rows."""

    rows = "labelled"

    def __init__(self, weight: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__(weight)
        self.label_smoothing = label_smoothing

    def validate(self) -> None:
        super().validate()
        self.require_number("label_smoothing", "a number from 0 to 1", lambda share: 0.0 <= share <= 1.0)

    def forward(self, student_logits: Tensor, labels: Tensor) -> Tensor:
        return response.cross_entropy(student_logits, labels, label_smoothing=self.label_smoothing)


class DivergenceTerm(Term):
    """Base of the terms that compare tempered class distributions row by row, over scored rows."""

    def __init__(self, weight: float = 1.0, temperature: float = 1.0, t2_scaling: bool = True) -> None:
        super().__init__(weight)
        self.temperature, self.t2_scaling = temperature, t2_scaling

    def validate(self) -> None:
        super().validate()
        self.require_number("temperature", "a finite number > 0", lambda temperature: temperature > 0.0)
        if not isinstance(self.t2_scaling, bool):
            self.refuse("t2_scaling", "must be true or false.", f"Write loss.term.{self.name}.t2_scaling=true.")

    def prepare(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        num_student, num_teacher = student_logits.shape[-1], teacher_logits.shape[-1]
        if num_student != num_teacher:
            raise UserError(
                f"loss.term.{self.name}",
                type(self).__name__,
                f"compares logits column by column, but the student has {num_student} columns and the teacher "
                f"{num_teacher}.",
                "Give the student the teacher's labels or vocabulary (student.config.vocab_size for a language model).",
            )


class ForwardKL(DivergenceTerm):
    """KL(teacher || student) (`divergence.forward_kl`): knowledge distillation."""

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return divergence.forward_kl(
            student_logits, teacher_logits, temperature=self.temperature, t2_scaling=self.t2_scaling
        )


class ReverseKL(DivergenceTerm):
    """KL(student || teacher) (`divergence.reverse_kl`)."""

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return divergence.reverse_kl(
            student_logits, teacher_logits, temperature=self.temperature, t2_scaling=self.t2_scaling
        )


class JSD(DivergenceTerm):
    """Generalised Jensen-Shannon divergence (`divergence.jsd`); `beta` weighs the teacher."""

    def __init__(
        self, weight: float = 1.0, beta: float = 0.5, temperature: float = 1.0, t2_scaling: bool = True
    ) -> None:
        super().__init__(weight, temperature, t2_scaling)
        self.beta = beta

    def validate(self) -> None:
        super().validate()
        self.require_number("beta", "a number from 0 (forward KL) to 1 (reverse KL)", lambda beta: 0.0 <= beta <= 1.0)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return divergence.jsd(
            student_logits, teacher_logits, beta=self.beta, temperature=self.temperature, t2_scaling=self.t2_scaling
        )


PROJECTORS = ("linear", "none")


class HiddenMSE(Term):
    """Mean squared difference of two taps (`hidden.hidden_mse`), over attended positions.

    projector: `linear` learns a `projection` from the student's width to the teacher's, trained with the student and
        dropped with the objective; `none` compares directly.
    """

    rows = "positions"

    def __init__(self, student_tap: str, teacher_tap: str, weight: float = 1.0, projector: str = "linear") -> None:
        super().__init__(weight)
        self.student_tap, self.teacher_tap = student_tap, teacher_tap
        self.student_taps, self.teacher_taps = (student_tap,), (teacher_tap,)
        self.projector = projector
        self.projection: nn.Module | None = None

    def validate(self) -> None:
        super().validate()
        for option in ("student_tap", "teacher_tap"):
            if not isinstance(getattr(self, option), str):
                self.refuse(option, "must be the path of a module.", "List them: potstill inspect")
        if self.projector not in PROJECTORS:
            self.refuse("projector", "is no projector.", nearest_hint(self.projector, PROJECTORS))

    def prepare(self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor]) -> None:
        student, teacher = student_hidden[self.student_tap], teacher_hidden[self.teacher_tap]
        self._refuse_mismatch(student, teacher)
        self.projection = nn.Identity() if self.projector == "none" else projection(student, teacher)

    def forward(self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor]) -> Tensor:
        assert self.projection is not None, "prepare(step) comes before forward"
        projected = self.projection(upcast(student_hidden[self.student_tap]))
        return hidden.hidden_mse(projected, teacher_hidden[self.teacher_tap])

    def _refuse_mismatch(self, student: Tensor, teacher: Tensor) -> None:
        gives = f"the student gives {list(student.shape)}, the teacher's '{self.teacher_tap}' {list(teacher.shape)}"
        if without_width(student) != without_width(teacher):
            self.refuse("student_tap", f"cannot be compared: {gives}.", "Choose taps of the same kind of module.")
        if self.projector == "none" and student.shape != teacher.shape:
            self.refuse("projector", f"needs equal widths: {gives}.", f"Write loss.term.{self.name}.projector=linear.")
