"""Terms: named, weighted parts of an objective. Each binds a pure loss to the fields of a Step, by name.

A new term is a subclass of `Term` and a file `conf/loss/term/<name>.yaml` that names it in `_target_`. Its options are
the fields of a dataclass: what a base class offers, each subclass has without repeating it.
"""

# N rows, C classes, P attended positions (or images), D width

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NoReturn, TypedDict

from torch import Tensor, nn

from potstill.errors import UserError, nearest_hint
from potstill.losses import divergence, response, sparse
from potstill.losses.layers import Layers
from potstill.losses.projection import PROJECTORS
from potstill.losses.row_forms import Form, Kind
from potstill.losses.sparse import TOPK_MODES, SparseLogits, TopkMode

log = logging.getLogger(__name__)

Rows = Literal["labelled", "scored", "positions", "examples"]


class Tempering(TypedDict):
    """The options that every tempered divergence has."""

    temperature: float
    t2_scaling: bool


@dataclass(eq=False, repr=False)  # a module is equal to itself alone, and shows itself as modules do
class Term(nn.Module):
    """One part of the objective: `forward` asks for fields of Step by the names of its parameters.

    It returns one value a row, `[rows]`, differentiable in the student's fields; the objective divides and weighs.

    name: the key under `loss.term`, given by the objective.
    rows: what its mean is taken over: `labelled` rows, all `scored` rows, attended `positions` (images: one each), or
        `examples`. Rows that do not count are left out or have the value 0.
    couples_rows: a row's value depends on the rows beside it, so the loss depends on how a batch is cut. Such a term
        takes neither micro-batches nor several ranks (`losses/coupling.py`).
    """

    rows: ClassVar[Rows] = "scored"
    couples_rows: ClassVar[bool] = False

    weight: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__init__()
        self.name = type(self).__name__

    @property
    def student_taps(self) -> tuple[str, ...]:
        """Module paths whose outputs it needs in `student_hidden`."""
        return ()

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        """The same of `teacher_hidden`."""
        return ()

    @property
    def form(self) -> Form | None:
        """The loss in closed form, where its gradient in the logits is known (`losses/row_forms.py`)."""
        return None

    @property
    def by_layer(self) -> bool:
        """Whether `locate` has to be called, with the layers of both models, before it knows its taps."""
        return False

    def locate(self, student: Layers, teacher: Layers) -> None:
        """Find the taps of the layers that the options number. UserError where there are no such layers."""

    def validate(self) -> None:
        """Refuse impossible options. Raises UserError; called by the objective once the term knows its name."""
        self.require_number("weight", "a finite number >= 0", lambda weight: weight >= 0.0)

    def prepare(self) -> None:
        """See one sample Step before training: create what depends on widths, refuse what cannot match (UserError).

        Overrides ask for fields of Step by name, as `forward` does.
        """

    def update(self) -> None:
        """Take in what a Step held, after its gradient was taken; for terms that remember earlier steps.

        Overrides ask for fields of Step by name, as `forward` does.
        """

    def check_rows(self, num_rows: Mapping[str, int]) -> None:
        """Refuse a batch of so many rows, by kind, that no memory holds what is made of it (UserError)."""

    def report(self) -> dict[str, Tensor]:
        """What it learned by itself, to be logged at every step: one number, `[1]`, by name."""
        return {}

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

    def require_bool(self, option: str) -> None:
        """Refuse an option that is neither true nor false."""
        if not isinstance(getattr(self, option), bool):
            self.refuse(option, "must be true or false.", f"Write loss.term.{self.name}.{option}=true.")

    def require_projector(self) -> None:
        """Refuse a `projector` that is no key of `projection.PROJECTORS`."""
        if (kind := getattr(self, "projector")) not in PROJECTORS:  # noqa: B009  an option of subclasses
            self.refuse("projector", "is no projector.", nearest_hint(kind, PROJECTORS))

    def require_focus(self) -> None:
        """Refuse a `focus` for which `response.focused` is not differentiable, or that would favour easy rows."""
        self.require_number("focus", "0 (off) or a number >= 1", lambda focus: focus == 0.0 or focus >= 1.0)


@dataclass(eq=False, repr=False)
class CrossEntropy(Term):
    """Cross-entropy of the gold label (`response.cross_entropy`), over labelled rows.

    focus: weighs each row by how hard it is (`response.focused`), which makes this the focal loss; 0 is off.
    """

    rows = "labelled"

    label_smoothing: float = 0.0
    focus: float = 0.0

    def validate(self) -> None:
        super().validate()
        self.require_number("label_smoothing", "a number from 0 to 1", lambda share: 0.0 <= share <= 1.0)
        self.require_focus()

    @property
    def form(self) -> Form | None:
        return None if self.focus else Form("ce", smoothing=self.label_smoothing)

    def forward(self, student_logits: Tensor, labels: Tensor) -> Tensor:
        values_N = response.cross_entropy(student_logits, labels, label_smoothing=self.label_smoothing)
        return response.focused(values_N, self.focus)


class LogitTerm(Term):
    """Base of the terms that compare logits column by column, over scored rows."""

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


@dataclass(eq=False, repr=False)
class DivergenceTerm(LogitTerm):
    """Base of the terms that compare tempered class distributions row by row: a subclass defines `divergence`.

    standardise: standardise both models' logits first (`response.standardise_logits`).
    focus: weighs each row by its own value (`response.focused`): hard rows count for more; 0 is off.
    """

    temperature: float = 1.0
    t2_scaling: bool = True
    standardise: bool = False
    focus: float = 0.0

    def validate(self) -> None:
        super().validate()
        self.require_number("temperature", "a finite number > 0", lambda temperature: temperature > 0.0)
        self.require_bool("t2_scaling")
        self.require_bool("standardise")
        self.require_focus()

    def prepare(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        super().prepare(student_logits, teacher_logits)
        if self.standardise and teacher_logits.shape[-1] < 3:
            problem = "leaves of two classes only which is the larger, and no gradient."
            self.refuse("standardise", problem, f"Write loss.term.{self.name}.standardise=false.")

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return self.finished(self.divergence(*self.seen(student_logits, teacher_logits)))

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        """One value a row, `[N]`."""
        raise NotImplementedError

    def seen(self, student_NC: Tensor, teacher_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Both models' logits as the divergence gets them."""
        if not self.standardise:
            return student_NC, teacher_NC
        return response.standardise_logits(student_NC), response.standardise_logits(teacher_NC)

    def finished(self, values_N: Tensor) -> Tensor:
        """What the objective gets of the divergence's values."""
        return response.focused(values_N, self.focus)

    def plain_form(self, kind: Kind, **options: Any) -> Form | None:
        """The closed form called `kind`, where neither logits nor values are changed around it."""
        scale = float(self.temperature**2) if self.t2_scaling else 1.0
        return None if self.standardise or self.focus else Form(kind, float(self.temperature), scale, **options)

    @property
    def tempering(self) -> Tempering:
        return {"temperature": self.temperature, "t2_scaling": self.t2_scaling}


@dataclass(eq=False, repr=False)
class SparseTerm(DivergenceTerm):
    """Base of the divergences from a teacher of whose logits all are known, or some: then `sparse_divergence`.

    topk_mode: what becomes of the classes that are not known (`losses/sparse.py`); without effect where all are.
    takes_samples: whether it is right on average where classes were drawn (`Sampled` in `signals/codecs.py`).
    """

    takes_samples: ClassVar[bool] = False

    topk_mode: TopkMode = "tail"

    def validate(self) -> None:
        super().validate()
        if self.topk_mode not in TOPK_MODES:
            self.refuse("topk_mode", "is no way to treat unknown classes.", nearest_hint(self.topk_mode, TOPK_MODES))

    def prepare(  # type: ignore[override]
        self, student_logits: Tensor, teacher_logits: Tensor | None, teacher_sparse: SparseLogits | None
    ) -> None:
        if teacher_sparse is None:
            assert teacher_logits is not None
            super().prepare(student_logits, teacher_logits)
            return
        for option, plain in (("standardise", False), ("focus", 0.0)):
            if getattr(self, option) != plain:
                problem = "is taken over all classes, and of this teacher only some are known."
                self.refuse(option, problem, f"Write loss.term.{self.name}.{option}={str(plain).lower()}.")
        if teacher_sparse.is_sampled:
            self._check_samples()

    def forward(  # type: ignore[override]
        self, student_logits: Tensor, teacher_logits: Tensor | None, teacher_sparse: SparseLogits | None
    ) -> Tensor:
        if teacher_sparse is None:
            assert teacher_logits is not None
            return super().forward(student_logits, teacher_logits)
        return self.sparse_divergence(student_logits, teacher_sparse).values

    def plain_form(self, kind: Kind, **options: Any) -> Form | None:
        return super().plain_form(kind, topk_mode=self.topk_mode, **options)

    def sparse_divergence(self, student_NC: Tensor, teacher: SparseLogits) -> sparse.Sparse:
        """One value a row, `[N]`, from the log-probabilities of some classes."""
        raise NotImplementedError

    def sparse_options(self, teacher: SparseLogits) -> dict[str, Any]:
        """What every sparse divergence is told beside the student."""
        known = {"teacher_NK": teacher.log_p, "ids_NK": teacher.ids, "log_normaliser_N": teacher.log_normaliser}
        return {**known, "topk_mode": self.topk_mode, **self.tempering}

    def _check_samples(self) -> None:
        key = f"loss.term.{self.name}"
        if not self.takes_samples:
            problem = "is not right on average where the teacher's classes were drawn, as its cache says."
            raise UserError(key, type(self).__name__, problem, "Take forward KL, loss=kd, or teacher.cache.form=top_k")
        if self.temperature != 1.0:
            problem = "would temper how often a class was drawn, which is not right on average."
            self.refuse("temperature", problem, f"Write {key}.temperature=1.0, or teacher.cache.form=top_k")
        if self.topk_mode != "raw":
            problem = "treats classes that were not drawn, and nothing is known of these."
            self.refuse("topk_mode", problem, f"Write {key}.topk_mode=raw.")


class ForwardKL(SparseTerm):
    """KL(teacher || student) (`divergence.forward_kl`): knowledge distillation."""

    takes_samples = True

    @property
    def form(self) -> Form | None:
        return self.plain_form("forward_kl")

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        return divergence.forward_kl(student_NC, teacher_NC, **self.tempering)

    def sparse_divergence(self, student_NC: Tensor, teacher: SparseLogits) -> sparse.Sparse:
        return sparse.sparse_forward_kl(student_NC, **self.sparse_options(teacher))


class ReverseKL(SparseTerm):
    """KL(student || teacher) (`divergence.reverse_kl`)."""

    @property
    def form(self) -> Form | None:
        return self.plain_form("reverse_kl")

    def prepare(  # type: ignore[override]
        self, student_logits: Tensor, teacher_logits: Tensor | None, teacher_sparse: SparseLogits | None
    ) -> None:
        super().prepare(student_logits, teacher_logits, teacher_sparse)
        if teacher_sparse is not None and self.topk_mode == "raw":
            text = "loss.term.%s.topk_mode=raw: reverse KL falls as the student leaves the classes that are known."
            log.warning(f"{text} Train with tail.", self.name)

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        return divergence.reverse_kl(student_NC, teacher_NC, **self.tempering)

    def sparse_divergence(self, student_NC: Tensor, teacher: SparseLogits) -> sparse.Sparse:
        return sparse.sparse_reverse_kl(student_NC, **self.sparse_options(teacher))


@dataclass(eq=False, repr=False)
class JSD(SparseTerm):
    """Generalised Jensen-Shannon divergence (`divergence.jsd`); `beta` weighs the teacher."""

    beta: float = 0.5

    def validate(self) -> None:
        super().validate()
        self.require_number("beta", "a number from 0 (forward KL) to 1 (reverse KL)", lambda beta: 0.0 <= beta <= 1.0)

    @property
    def form(self) -> Form | None:
        ends: dict[float, Kind] = {0.0: "forward_kl", 1.0: "reverse_kl"}
        return self.plain_form(ends.get(self.beta, "jsd"), beta=float(self.beta))

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        return divergence.jsd(student_NC, teacher_NC, beta=self.beta, **self.tempering)

    def sparse_divergence(self, student_NC: Tensor, teacher: SparseLogits) -> sparse.Sparse:
        return sparse.sparse_jsd(student_NC, beta=self.beta, **self.sparse_options(teacher))
