"""Terms that compare the logits of two models beyond forward KL, reverse KL and Jensen-Shannon (`losses/terms.py`)."""

# N rows, C classes (or vocabulary)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from potstill.errors import UserError
from potstill.losses import curriculum, divergence, ranking, response
from potstill.losses.row_forms import Form
from potstill.losses.terms import DivergenceTerm, LogitTerm


@dataclass(eq=False, repr=False)
class ForwardCE(DivergenceTerm):
    """Cross-entropy under the teacher's distribution (`divergence.forward_ce`): not 0 where the models agree.

    teacher_temperature: of the teacher alone, where it is to differ from `temperature`.
    """

    teacher_temperature: float | None = None

    def validate(self) -> None:
        super().validate()
        if self.teacher_temperature is not None:
            self.require_number("teacher_temperature", "null or a finite number > 0", lambda number: number > 0.0)

    @property
    def form(self) -> Form | None:
        return None if self.teacher_temperature else self.plain_form("forward_ce")

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        return divergence.forward_ce(
            student_NC, teacher_NC, teacher_temperature=self.teacher_temperature, **self.tempering
        )


@dataclass(eq=False, repr=False)
class SkewTerm(DivergenceTerm):
    """Base of the divergences to a mixture; `skew` is the part in it of the model that is compared with it."""

    skew: float = 0.1

    def validate(self) -> None:
        super().validate()
        self.require_number("skew", "a number from 0 (plain KL) to below 1", lambda skew: 0.0 <= skew < 1.0)


class SkewForwardKL(SkewTerm):
    """KL of the teacher to a mixture of both (`divergence.skew_forward_kl`)."""

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        return divergence.skew_forward_kl(student_NC, teacher_NC, skew=self.skew, **self.tempering)


class SkewReverseKL(SkewTerm):
    """KL of the student to a mixture of both (`divergence.skew_reverse_kl`)."""

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        return divergence.skew_reverse_kl(student_NC, teacher_NC, skew=self.skew, **self.tempering)


@dataclass(eq=False, repr=False)
class AdaptiveKL(DivergenceTerm):
    """Forward and reverse KL, weighed by where the models differ (`divergence.adaptive_kl`)."""

    head_mass: float = 0.5

    def validate(self) -> None:
        super().validate()
        self.require_number("head_mass", "a number between 0 and 1", lambda mass: 0.0 < mass < 1.0)

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        return divergence.adaptive_kl(student_NC, teacher_NC, head_mass=self.head_mass, **self.tempering)


@dataclass(eq=False, repr=False)
class TVD(DivergenceTerm):
    """Total variation distance (`divergence.tvd`)."""

    t2_scaling: bool = False  # its gradient shrinks as 1 / T only

    @property
    def form(self) -> Form | None:
        return self.plain_form("tvd")

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        return divergence.tvd(student_NC, teacher_NC, **self.tempering)


@dataclass(eq=False, repr=False)
class LogitMSE(LogitTerm):
    """Mean squared difference of logits (`response.logit_mse`); `centre` ignores a constant added to a row."""

    centre: bool = True

    def validate(self) -> None:
        super().validate()
        self.require_bool("centre")

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return response.logit_mse(student_logits, teacher_logits, centre=self.centre)


@dataclass(eq=False, repr=False)
class DKD(DivergenceTerm):
    """Decoupled distillation (`response.dkd`), over labelled rows."""

    rows = "labelled"

    temperature: float = 4.0
    target_weight: float = 1.0
    non_target_weight: float = 8.0

    def validate(self) -> None:
        super().validate()
        for option in ("target_weight", "non_target_weight"):
            self.require_number(option, "a finite number >= 0", lambda weight: weight >= 0.0)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        values_N = response.dkd(
            *self.seen(student_logits, teacher_logits),
            labels,
            target_weight=self.target_weight,
            non_target_weight=self.non_target_weight,
            **self.tempering,
        )
        return self.finished(values_N)


class DISTInter(DivergenceTerm):
    """Decorrelation of a row's probabilities over the classes (`response.dist_inter`): one half of DIST.

    It needs three classes: two always correlate by 1 or -1, and nothing moves that.
    """

    def prepare(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        super().prepare(student_logits, teacher_logits)
        if teacher_logits.shape[-1] < 3:
            problem = "correlates over classes, of which any two correlate by 1 or -1, without gradient."
            fix = "Leave it out: loss/term=[ce,dist_intra], for example."
            raise UserError(f"loss.term.{self.name}", type(self).__name__, problem, fix)

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        return response.dist_inter(student_NC, teacher_NC, **self.tempering)


class DISTIntra(DivergenceTerm):
    """Decorrelation of a class's probabilities over the rows (`response.dist_intra`): the other half of DIST.

    Every row gets the mean over classes, so that the mean over rows is the loss of the batch. It depends on how the
    batch is cut: with micro-batches or several ranks it would be another loss.
    """

    couples_rows = True

    def divergence(self, student_NC: Tensor, teacher_NC: Tensor) -> Tensor:
        values_C = response.dist_intra(student_NC, teacher_NC, **self.tempering)
        return values_C.mean(dim=-1).expand(len(student_NC))


@dataclass(eq=False, repr=False)
class MultiTemperatureKL(LogitTerm):
    """Forward KL at several temperatures (`response.multi_temperature_kl`)."""

    temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0)
    t2_scaling: bool = True

    def validate(self) -> None:
        super().validate()
        self.require_bool("t2_scaling")
        given = self.temperatures
        numbers = () if isinstance(given, str) or not isinstance(given, Sequence) else given
        if not numbers or not all(isinstance(each, (int, float)) and 0.0 < each < float("inf") for each in numbers):
            fix = f"Write loss.term.{self.name}.temperatures=[2.0,4.0], for example."
            self.refuse("temperatures", "must be a list of finite numbers > 0.", fix)

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return response.multi_temperature_kl(
            student_logits, teacher_logits, temperatures=tuple(self.temperatures), t2_scaling=self.t2_scaling
        )


@dataclass(eq=False, repr=False)
class CTKD(LogitTerm):
    """Forward KL at one temperature for all rows, learned against the student (`curriculum.curriculum_kl`).

    Its parameter trains with the student and is dropped with the objective.

    min_temperature, max_temperature: its bounds. initial: of the parameter, whose sigmoid lies between them.
    reversal: how much of the gradient, reversed, the temperature follows.
    """

    min_temperature: float = 1.0
    max_temperature: float = 21.0
    initial: float = 1.0
    reversal: float = 1.0
    t2_scaling: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.parameter = nn.Parameter(torch.full((1,), float(self.initial)))  # a scalar could not be sharded
        self.temperature_now: Tensor | None = None

    def validate(self) -> None:
        super().validate()
        self.require_number("min_temperature", "a finite number > 0", lambda number: number > 0.0)
        lowest = self.min_temperature
        self.require_number("max_temperature", f"more than min_temperature={lowest}", lambda number: number > lowest)
        self.require_number("initial", "a finite number", lambda _: True)
        self.require_number("reversal", "a finite number >= 0", lambda number: number >= 0.0)
        self.require_bool("t2_scaling")

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        temperature = curriculum.bounded(self.parameter, self.min_temperature, self.max_temperature)
        self.temperature_now = temperature.detach()
        return curriculum.curriculum_kl(
            student_logits, teacher_logits, temperature, reversal=self.reversal, t2_scaling=self.t2_scaling
        )

    def report(self) -> dict[str, Tensor]:
        return {} if self.temperature_now is None else {"temperature": self.temperature_now}


@dataclass(eq=False, repr=False)
class RankingTerm(LogitTerm):
    """Base of the terms that compare the order of the teacher's `top_k` classes; null: of all."""

    min_classes = 1

    top_k: int | None = None

    def validate(self) -> None:
        super().validate()
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < self.min_classes):
            fix = f"Write loss.term.{self.name}.top_k=10, for example."
            self.refuse("top_k", f"must be null or a whole number >= {self.min_classes}.", fix)

    def prepare(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        super().prepare(student_logits, teacher_logits)
        num_classes = teacher_logits.shape[-1]
        if self.top_k is not None and self.top_k > num_classes:
            fix = f"Write loss.term.{self.name}.top_k={num_classes}, or null."
            self.refuse("top_k", f"is more than the {num_classes} classes.", fix)


@dataclass(eq=False, repr=False)
class HingeRanking(RankingTerm):
    """Pairwise hinge on logits (`ranking.hinge_ranking`); `margin` caps the gap asked for, null: the teacher's own."""

    min_classes = 2
    max_classes_unasked = 1000  # half a million pairs a row

    margin: float | None = None

    def validate(self) -> None:
        super().validate()
        if self.margin is not None:
            self.require_number("margin", "null or a finite number > 0", lambda margin: margin > 0.0)

    def prepare(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        super().prepare(student_logits, teacher_logits)
        num_classes = teacher_logits.shape[-1]
        if self.top_k is None and num_classes > self.max_classes_unasked:
            problem = f"compares all pairs of {num_classes} classes in each row."
            self.refuse("top_k", problem, f"Write loss.term.{self.name}.top_k=10, for example.")

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return ranking.hinge_ranking(student_logits, teacher_logits, margin=self.margin, top_k=self.top_k)


class ListMLE(RankingTerm):
    """Likelihood of the teacher's order of classes (`ranking.list_mle`): not 0 where the models agree."""

    def forward(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        return ranking.list_mle(student_logits, teacher_logits, top_k=self.top_k)
