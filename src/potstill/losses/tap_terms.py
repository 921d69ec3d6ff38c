"""Bases of the terms on what lies inside the models: layers by number, modules by path, projectors."""

# P rows: attended positions `[P, D]`, image tokens `[P, L, D]`, or feature maps `[P, D, H, W]`; D width

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from potstill.errors import nearest_hint
from potstill.losses.layer_maps import LAYER_MAPS, layer_pairs
from potstill.losses.layers import Layers
from potstill.losses.precision import upcast
from potstill.losses.projection import projection, without_width
from potstill.losses.terms import Term


@dataclass(eq=False, repr=False)
class LayerTerm(Term):
    """Base of the terms that may be told layers by number, from 0; negative: from the end.

    student_layer: one, a list, or null: all. teacher_layer: as many, or what gives each of the student's layers one, a
        map of `layer_maps`: uniform, first, last. Layers are compared in pairs.
    """

    rows = "positions"

    student_layer: int | Sequence[int] | None = field(default=None, kw_only=True)
    teacher_layer: int | Sequence[int] | str | None = field(default=None, kw_only=True)

    @property
    def by_layer(self) -> bool:
        return True

    def validate(self) -> None:
        super().validate()
        if isinstance(self.teacher_layer, str):
            if self.teacher_layer not in LAYER_MAPS:
                self.refuse("teacher_layer", "is no layer map.", nearest_hint(self.teacher_layer, LAYER_MAPS))
        else:
            self._require_numbers("teacher_layer")
        if self.student_layer is not None:
            self._require_numbers("student_layer")

    def _require_numbers(self, option: str) -> None:
        numbers = _listed(getattr(self, option))
        if not numbers or not all(type(each) is int for each in numbers):
            fix = f"Write loss.term.{self.name}.{option}=-1, for the last layer."
            self.refuse(option, "must be the number of a layer, or a list.", fix)

    def layer_pairs(self, student: Layers, teacher: Layers) -> list[tuple[int, int]]:
        """The layers to be compared. UserError where a model does not have them."""
        assert self.teacher_layer is not None
        try:
            return layer_pairs(self.student_layer, self.teacher_layer, len(student.outputs), len(teacher.outputs))
        except ValueError as error:
            self.refuse("teacher_layer", f"is impossible: {error}.", "Choose layers that both models have.")


@dataclass(eq=False, repr=False)
class TapTerm(LayerTerm):
    """Base of the terms that compare taps of the two models, over attended positions (images: one row each).

    student_tap, teacher_tap: the path of a module each, or equally many of both, compared in pairs and averaged; null
        where the layers are numbered instead.
    """

    student_tap: str | Sequence[str] | None = None
    teacher_tap: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.student_tap, self.teacher_tap
        self._taps = tuple(() if tap is None else _listed(tap) for tap in given)

    @property
    def by_layer(self) -> bool:
        return self.student_tap is None and self.teacher_tap is None

    @property
    def student_taps(self) -> tuple[str, ...]:
        return self._taps[0]

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        return self._taps[1]

    def validate(self) -> None:
        has_layers = self.student_layer is not None or self.teacher_layer is not None
        if self.by_layer and has_layers:
            super().validate()
            return
        Term.validate(self)
        if has_layers:
            problem = "names modules, and layers are numbered as well."
            self.refuse("student_tap", problem, f"Leave loss.term.{self.name}.student_layer and teacher_layer out.")
        self._validate_paths()

    def _validate_paths(self) -> None:
        for option, paths in (("student_tap", self.student_taps), ("teacher_tap", self.teacher_taps)):
            if not paths or not all(isinstance(path, str) for path in paths):
                fix = f"List them: potstill inspect; or number layers: loss.term.{self.name}.teacher_layer=uniform"
                self.refuse(option, "must be the path of a module, or a list.", fix)
        if len(self.student_taps) != len(self.teacher_taps):
            problem = f"has as many paths as teacher_tap, {len(self.teacher_taps)}: they are compared in pairs."
            self.refuse("student_tap", problem, "Give each path of the student one of the teacher.")

    def locate(self, student: Layers, teacher: Layers) -> None:
        pairs = self.layer_pairs(student, teacher)
        self._taps = tuple(student.outputs[mine] for mine, _ in pairs), tuple(teacher.outputs[its] for _, its in pairs)

    def pairs(
        self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor]
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """What the two models give at each pair of taps."""
        for student_path, teacher_path in zip(self.student_taps, self.teacher_taps, strict=True):
            yield student_hidden[student_path], teacher_hidden[teacher_path]

    def prepare(self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor]) -> None:
        for student, teacher in self.pairs(student_hidden, teacher_hidden):
            self.match(student, teacher)

    def forward(
        self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor], lengths: Tensor | None = None
    ) -> Tensor:
        pairs = self.compared(student_hidden, teacher_hidden)
        return self.combine([self.compare_within(*pair, lengths) for pair in pairs])

    def combine(self, values: list[Tensor]) -> Tensor:
        """What a row is worth, of its values at each pair of taps: their mean."""
        return torch.stack(values).mean(dim=-2)

    def compared(
        self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor]
    ) -> Iterable[tuple[Tensor, Tensor]]:
        """What `compare` sees of each pair of taps."""
        return self.pairs(student_hidden, teacher_hidden)

    def compare_within(self, student: Tensor, teacher: Tensor, lengths: Tensor | None) -> Tensor:  # noqa: ARG002
        """One value a row; for overrides that have to know which positions are of one example (`padding.padded`)."""
        return self.compare(student, teacher)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        """One value a row."""
        raise NotImplementedError

    def match(self, student: Tensor, teacher: Tensor) -> None:
        """Refuse two hidden states that cannot be compared. Raises UserError."""
        if without_width(student) != without_width(teacher):
            problem, fix = "cannot be compared", "Choose taps of the same kind of module."
            self.refuse_pair("student_tap", student, teacher, problem, fix)

    def refuse_pair(self, option: str, student: Tensor, teacher: Tensor, problem: str, fix: str) -> NoReturn:
        """Raise a UserError that shows what the two taps give."""
        tap = ", ".join(self.teacher_taps)
        gives = f"the student gives {list(student.shape)}, the teacher's '{tap}' {list(teacher.shape)}"
        self.refuse(option, f"{problem}: {gives}.", fix)


@dataclass(eq=False, repr=False)
class ProjectedTerm(TapTerm):
    """Base of the terms that compare two taps at the teacher's width.

    projector: a key of `projection.PROJECTORS`: what maps the student's width to the teacher's, one for each pair,
        trained with the student and dropped with the objective. `none` compares directly.
    """

    shares_projector: ClassVar[bool] = False  # one for all pairs

    projector: str = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.projection: nn.Module | None = None

    def validate(self) -> None:
        super().validate()
        self.require_projector()

    def prepare(self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor]) -> None:
        super().prepare(student_hidden, teacher_hidden)
        pairs = list(self.pairs(student_hidden, teacher_hidden))[: 1 if self.shares_projector else None]
        made = [projection(*pair, kind=self.projector) for pair in pairs]
        self.projection = made[0] if len(made) == 1 else nn.ModuleList(made)

    def compared(
        self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor]
    ) -> Iterable[tuple[Tensor, Tensor]]:
        assert self.projection is not None, "prepare(step) comes before forward"
        made, num_pairs = self.projection, len(self.student_taps)
        layers = made if isinstance(made, nn.ModuleList) else [made] * num_pairs
        for layer, (student, teacher) in zip(layers, self.pairs(student_hidden, teacher_hidden), strict=True):
            yield layer(upcast(student)), teacher

    def match(self, student: Tensor, teacher: Tensor) -> None:
        super().match(student, teacher)
        fix = f"Write loss.term.{self.name}.projector=linear."
        if self.projector == "none" and student.shape != teacher.shape:
            self.refuse_pair("projector", student, teacher, "needs equal widths", fix)
        if self.projector == "orthogonal" and student.ndim == 4:
            self.refuse_pair("projector", student, teacher, "is impossible for feature maps", fix)


def _listed(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
