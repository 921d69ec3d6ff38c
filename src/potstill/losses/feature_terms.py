"""Terms on hidden states and feature maps, row by row."""

# P rows: attended positions `[P, D]`, image tokens `[P, L, D]`, or feature maps `[P, D, H, W]`; D width
# B examples, L length, S places

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from potstill.errors import nearest_hint
from potstill.losses import attention, hidden
from potstill.losses.layers import Layers
from potstill.losses.padding import padded
from potstill.losses.projection import width_last
from potstill.losses.tap_terms import ProjectedTerm, TapTerm

POSITIONS = ("first", "mean", "all")


class HiddenMSE(ProjectedTerm):
    """Mean squared difference of two taps (`hidden.hidden_mse`), over attended positions."""

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return hidden.hidden_mse(student, teacher)


class HiddenCosine(ProjectedTerm):
    """1 - cosine of two taps along their width (`hidden.hidden_cosine`), over attended positions."""

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return hidden.hidden_cosine(width_last(student), width_last(teacher))


@dataclass(eq=False, repr=False)
class PatientKD(ProjectedTerm):
    """Hidden states at length 1, as summaries of examples (`hidden.patient`), over examples; layers are averaged.

    teacher_layer: `uniform` is PKD-Skip, `last` PKD-Last. Such a map leaves the student's last layer out, as the paper
        does: what it gives is what the loss on logits imitates.
    position: the paper's `first`, the `mean` over positions, or `all`: each at length 1, averaged over the example.
    """

    rows = "examples"

    projector: str = "none"
    position: str = "first"

    def validate(self) -> None:
        super().validate()
        if self.position not in POSITIONS:
            self.refuse("position", "is no choice of positions.", nearest_hint(self.position, POSITIONS))

    def layer_pairs(self, student: Layers, teacher: Layers) -> list[tuple[int, int]]:
        pairs = super().layer_pairs(student, teacher)
        if not isinstance(self.teacher_layer, str):
            return pairs
        if len(pairs) == 1:
            fix = f"Number the layers: loss.term.{self.name}.student_layer=0 loss.term.{self.name}.teacher_layer=-2"
            self.refuse("teacher_layer", "leaves the last layer out, and the student has no other.", fix)
        return pairs[:-1]

    def prepare(
        self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor], lengths: Tensor | None
    ) -> None:
        super().prepare(student_hidden, teacher_hidden)
        for student, teacher in self.pairs(student_hidden, teacher_hidden) if lengths is None else ():
            if student.ndim != 3:
                fix = "Choose layers that give one vector a token."
                self.refuse_pair("position", student, teacher, "needs tokens", fix)

    def compare_within(self, student: Tensor, teacher: Tensor, lengths: Tensor | None) -> Tensor:
        (student_BLD, mask_BL), (teacher_BLD, _) = (padded(each, lengths) for each in (student, teacher))
        if self.position == "all":
            values_BL = hidden.patient(student_BLD.flatten(0, 1), teacher_BLD.flatten(0, 1)).view(mask_BL.shape)
            return hidden.pool(values_BL.unsqueeze(-1), mask_BL, "mean").squeeze(-1)
        return hidden.patient(*(hidden.pool(each, mask_BL, self.position) for each in (student_BLD, teacher_BLD)))


class MapTerm(TapTerm):
    """Base of the terms that compare where two models are active in an example: feature maps, or tokens.

    Widths may differ.
    """

    rows = "examples"

    def prepare(
        self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor], lengths: Tensor | None
    ) -> None:
        super().prepare(student_hidden, teacher_hidden)
        for student, teacher in self.pairs(student_hidden, teacher_hidden) if lengths is None else ():
            if student.ndim < 3:
                fix = "Tap feature maps of an image model, or the tokens of its layers."
                self.refuse_pair("student_tap", student, teacher, "needs several places an example", fix)

    def compare_within(self, student: Tensor, teacher: Tensor, lengths: Tensor | None) -> Tensor:
        (student_BSD, mask_BS), (teacher_BSD, _) = (_places(each, lengths) for each in (student, teacher))
        return self.compare_maps(student_BSD, teacher_BSD, mask_BS)

    def compare_maps(self, student_BSD: Tensor, teacher_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        """One value an example, of what is at its places; at those that do not exist there are zeros."""
        raise NotImplementedError


@dataclass(eq=False, repr=False)
class AttentionTransfer(MapTerm):
    """Activation maps at length 1 (`attention.attention_transfer`), over examples: of pixels or tokens.

    Tap what no LayerNorm has made alike: of a layer of BERT, whose output it normalises, every token is as active as
    the next, and the term is next to 0 (`output.dense` inside the layer is not).
    power: of the activations that a map averages over its channels.
    """

    power: float = 2.0

    def validate(self) -> None:
        super().validate()
        self.require_number("power", "a finite number >= 1", lambda power: power >= 1.0)

    def compare_maps(self, student_BSD: Tensor, teacher_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        return attention.attention_transfer(student_BSD, teacher_BSD, power=self.power, mask_BS=mask_BS)


class NST(MapTerm):
    """Neuron selectivity transfer: the distribution of channels' maps (`attention.nst`), over examples."""

    def compare_maps(self, student_BSD: Tensor, teacher_BSD: Tensor, mask_BS: Tensor) -> Tensor:  # noqa: ARG002  zeros
        return attention.nst(student_BSD, teacher_BSD)


def _places(hidden_states: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """`[B, S, D]` of feature maps `[B, D, H, W]`, of tokens, or of text, and which of the places exist."""
    return padded(width_last(hidden_states).flatten(1, -2) if lengths is None else hidden_states, lengths)
