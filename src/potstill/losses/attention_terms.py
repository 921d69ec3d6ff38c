"""Terms on queries, keys and values of layers, and on the attention that comes of them."""

# P attended positions; B batch, A heads, L length, D width

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NoReturn

import torch
from torch import Tensor

from potstill.errors import UserError, nearest_hint
from potstill.losses import attention
from potstill.losses.hidden import hidden_mse
from potstill.losses.layers import Layers, Part
from potstill.losses.padding import a_row_each, padded
from potstill.losses.tap_terms import LayerTerm, ProjectedTerm

STATES = ("queries", "keys", "values")
HEADS = ("same", "mean")


@dataclass(eq=False, repr=False)
class AttentionTerm(LayerTerm):
    """Base of the terms that compare states of attention, over attended positions; pairs of layers are added up.

    What an example has is put together again (`padding.padded`), so that its positions meet each other and no others.
    """

    needs_scores: ClassVar[bool] = False

    @property
    def states(self) -> Sequence[str]:
        """Which of `STATES` it takes."""
        return STATES

    @property
    def student_taps(self) -> tuple[str, ...]:
        return self._paths(0)

    @property
    def teacher_taps(self) -> tuple[str, ...]:
        return self._paths(1)

    def locate(self, student: Layers, teacher: Layers) -> None:
        for who, layers in (("student", student), ("teacher", teacher)):
            if not layers.attention:
                fix = "Known: BERT, RoBERTa, DeBERTa v2, DistilBERT, ViT, Llama, Mistral, Qwen2, GPT-2 and their like."
                self.refuse_model(who, layers, "whose queries, keys and values are not found.", fix)
            if self.needs_scores and not layers.has_plain_scores:
                problem = "whose attention is not softmax(q.k / sqrt(d)) alone: positions or a mask come into it."
                self.refuse_model(who, layers, problem, "Use its relations instead: loss/term=[ce,kd,minilm_v2]")
        pairs = self.layer_pairs(student, teacher)
        self._located = [(student.attention[mine], teacher.attention[its]) for mine, its in pairs]
        self._num_heads = student.num_heads, teacher.num_heads

    def forward(
        self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor], lengths: Tensor | None = None
    ) -> Tensor:
        values = []
        for student, teacher in self._pairs(student_hidden, teacher_hidden):
            (student_states, mask_BL), (teacher_states, _) = (_examples(each, lengths) for each in (student, teacher))
            values.append(a_row_each(self.compare(student_states, teacher_states, mask_BL), mask_BL, lengths))
        return torch.stack(values).sum(dim=0)

    def compare(self, student: list[Tensor], teacher: list[Tensor], mask_BL: Tensor) -> Tensor:
        """One value an attended position, `[P]`, of the `states` of one layer of each model, `[B, L, D]`."""
        raise NotImplementedError

    def scores(self, student: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Both models' attention scores before the softmax, `[B, A, L, L]`, of their queries and keys."""
        of_student, of_teacher = self._num_heads
        return (
            attention.attention_scores(student[0], student[1], of_student),
            attention.attention_scores(teacher[0], teacher[1], of_teacher),
        )

    def refuse_model(self, who: str, layers: Layers, problem: str, fix: str) -> NoReturn:
        """Raise a UserError about an architecture."""
        told = f"is impossible with this {who} ({layers.architecture}), {problem}"
        raise UserError(f"loss.term.{self.name}", type(self).__name__, told, fix)

    def refuse_heads(self, fix: str) -> None:
        """UserError where the two models do not have the same number of heads."""
        mine, its = self._num_heads
        if mine != its:
            problem = f"compares head by head, but the student has {mine} and the teacher {its}."
            raise UserError(f"loss.term.{self.name}", type(self).__name__, problem, fix)

    def _paths(self, who: int) -> tuple[str, ...]:
        parts = [pair[who][state] for pair in getattr(self, "_located", ()) for state in self.states]
        return tuple(dict.fromkeys(part.path for part in parts))

    def _pairs(
        self, student_hidden: Mapping[str, Tensor], teacher_hidden: Mapping[str, Tensor]
    ) -> Iterable[tuple[list[Tensor], list[Tensor]]]:
        for student, teacher in self._located:
            yield self._of(student, student_hidden), self._of(teacher, teacher_hidden)

    def _of(self, layer: Mapping[str, Part], hidden: Mapping[str, Tensor]) -> list[Tensor]:
        return [layer[state].of(hidden) for state in self.states]


@dataclass(eq=False, repr=False)
class MiniLMv2(AttentionTerm):
    """Self-relations of queries, keys and values (`attention.minilm_v2`), over attended positions.

    student_layer, teacher_layer: the last of both, as in the paper for a teacher of 12 layers; of BERT-large it takes
        number 20 of 24 (its 21st), of RoBERTa-large number 18.
    num_heads: relation heads; must divide the width of each of the states, of both models.
    relations: which of queries, keys, values.
    """

    num_heads: int = 48
    relations: Sequence[str] = STATES

    def validate(self) -> None:
        super().validate()
        self.require_number("num_heads", "a whole number >= 1", lambda num_heads: num_heads >= 1 and num_heads % 1 == 0)
        if isinstance(self.relations, str) or not self.relations or len(set(self.relations)) < len(self.relations):
            fix = f"Write loss.term.{self.name}.relations=[{','.join(STATES)}]"
            self.refuse("relations", "must be a list, each once.", fix)
        for name in self.relations:
            if name not in STATES:
                self.refuse("relations", f"has '{name}', which nothing is called.", nearest_hint(name, STATES))

    @property
    def states(self) -> Sequence[str]:
        return self.relations

    def prepare(self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor]) -> None:
        widths = {
            state.shape[-1]
            for pair in self._pairs(student_hidden, teacher_hidden)
            for states in pair
            for state in states
        }
        if any(width % self.num_heads for width in widths):
            shared = math.gcd(*widths)
            possible = [number for number in range(1, shared + 1) if shared % number == 0]
            nearest = min(possible, key=lambda number: abs(number - self.num_heads))
            problem = f"does not divide all widths of {', '.join(self.relations)}: {sorted(widths)}."
            self.refuse(
                "num_heads", problem, f"Write loss.term.{self.name}.num_heads={nearest}, the nearest that does."
            )

    def compare(self, student: list[Tensor], teacher: list[Tensor], mask_BL: Tensor) -> Tensor:
        return attention.minilm_v2(student, teacher, mask_BL, num_heads=self.num_heads)


@dataclass(eq=False, repr=False)
class MiniLM(AttentionTerm):
    """Attention and value relation (`attention.minilm`), over attended positions; both models need as many heads.

    student_layer, teacher_layer: the last of both, as in the paper.
    """

    needs_scores = True

    def locate(self, student: Layers, teacher: Layers) -> None:
        super().locate(student, teacher)
        self.refuse_heads("Give the student the teacher's number of heads, or take relations alone: minilm_v2.")

    def compare(self, student: list[Tensor], teacher: list[Tensor], mask_BL: Tensor) -> Tensor:
        student_scores, teacher_scores = self.scores(student, teacher)
        return attention.minilm(student_scores, teacher_scores, student[2], teacher[2], mask_BL)


@dataclass(eq=False, repr=False)
class TinyBERTAttention(AttentionTerm):
    """Attention scores before the softmax (`attention.attention_score_mse`), over attended positions and their keys.

    The mean over the keys of a position's example; added up over layers, as in TinyBERT. teacher_layer: `uniform` is
    the paper's map.
    heads: same, head by head, as in the paper, which needs equally many; or mean: each model's scores averaged over its
        heads first, which is not the paper's, for a student with other heads.
    """

    needs_scores = True

    heads: str = "same"

    @property
    def states(self) -> Sequence[str]:
        return STATES[:2]

    def validate(self) -> None:
        super().validate()
        if self.heads not in HEADS:
            self.refuse("heads", "is neither same nor mean.", nearest_hint(self.heads, HEADS))

    def locate(self, student: Layers, teacher: Layers) -> None:
        super().locate(student, teacher)
        if self.heads == "same":
            fix = f"Write loss.term.{self.name}.heads=mean, or give the student the teacher's number of heads."
            self.refuse_heads(fix)

    def compare(self, student: list[Tensor], teacher: list[Tensor], mask_BL: Tensor) -> Tensor:
        student_BALL, teacher_BALL = self.scores(student, teacher)
        if self.heads == "mean":
            student_BALL, teacher_BALL = (each.mean(dim=1, keepdim=True) for each in (student_BALL, teacher_BALL))
        return attention.mean_over_keys(attention.attention_score_mse(student_BALL, teacher_BALL, mask_BL), mask_BL)


@dataclass(eq=False, repr=False)
class TinyBERTHidden(ProjectedTerm):
    """Embeddings and hidden states (`hidden.hidden_mse`), over attended positions; layers are added up.

    One projector for the embeddings and all layers, as in TinyBERT's code (the paper names that of the embeddings
    apart). teacher_layer: `uniform` is the paper's map.
    embeddings: whether the embeddings are compared as well.
    """

    shares_projector = True

    embeddings: bool = True

    def validate(self) -> None:
        super().validate()
        self.require_bool("embeddings")

    def locate(self, student: Layers, teacher: Layers) -> None:
        super().locate(student, teacher)
        if self.embeddings:
            self._taps = tuple(
                (layers.embeddings, *taps) for layers, taps in zip((student, teacher), self._taps, strict=True)
            )

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        return hidden_mse(student, teacher)

    def combine(self, values: list[Tensor]) -> Tensor:
        return torch.stack(values).sum(dim=0)


def _examples(states: list[Tensor], lengths: Tensor | None) -> tuple[list[Tensor], Tensor]:
    pairs = [padded(state, lengths) for state in states]
    return [state for state, _ in pairs], pairs[0][1]
