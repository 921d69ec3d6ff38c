"""Terms that remember what the models gave for earlier batches."""

# N rows, M training examples, D width

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from potstill.errors import UserError
from potstill.losses.contrastive import MemoryBank
from potstill.losses.geometry import flat
from potstill.losses.layers import Layers
from potstill.losses.precision import upcast
from potstill.losses.relation_terms import TapRelation


@dataclass(eq=False, repr=False)
class CRD(TapRelation):
    """Contrastive representation distillation (`contrastive.crd`), over examples.

    Both models' features pass a linear map of their own to `width`, trained with the student and dropped with the
    objective. The bank keeps two vectors for every training example, so a batch is neither cut nor shared: each rank
    would have a bank of its own.

    width: of the embeddings that are compared. num_negatives: drawn for each row from all other training examples.
    momentum: what a vector in the bank keeps of itself when its example is seen again.
    """

    width: int = 128
    num_negatives: int = 16384
    momentum: float = 0.5
    temperature: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        self.student_embedding: nn.Module | None = None
        self.teacher_embedding: nn.Module | None = None
        self.bank: MemoryBank | None = None

    def validate(self) -> None:
        super().validate()
        if len(self.student_taps) > 1:
            self.refuse("student_tap", "names several modules; the bank is of one.", "Add a second term for another.")
        for option in ("width", "num_negatives"):
            self.require_number(option, "a whole number >= 1", lambda number: number >= 1 and number % 1 == 0)
        self.require_number("momentum", "a number from 0 to below 1", lambda momentum: 0.0 <= momentum < 1.0)
        self.require_number("temperature", "a finite number > 0", lambda temperature: temperature > 0.0)

    def locate(self, student: Layers, teacher: Layers) -> None:
        super().locate(student, teacher)
        if len(self.student_taps) > 1:
            self.refuse("student_layer", "names several layers; the bank is of one.", "Add a second term for another.")

    def prepare(  # type: ignore[override]
        self,
        student_hidden: dict[str, Tensor],
        teacher_hidden: dict[str, Tensor],
        labels: Tensor,
        lengths: Tensor | None,
        numbers: Tensor,
        num_examples: int,
    ) -> None:
        super().prepare(student_hidden, teacher_hidden, labels, lengths)
        if num_examples < 2:
            problem = "contrasts an example with others, of which there are none."
            self.refuse("num_negatives", problem, "Train on two examples at least.")
        student, teacher = self._features(student_hidden, teacher_hidden, lengths)
        if len(student) != len(numbers):
            problem = f"remembers one vector an example, and these have {len(student) // len(numbers)} texts each."
            fix = "Train on single texts (data.pair_by_label=false), or take another loss: loss=info_nce"
            raise UserError(f"loss.term.{self.name}", type(self).__name__, problem, fix)
        self.student_embedding, self.teacher_embedding = (_embedding(each, self.width) for each in (student, teacher))
        self.bank = MemoryBank(num_examples, self.width, momentum=self.momentum).to(student.device)

    def forward(  # type: ignore[override]
        self,
        student_hidden: dict[str, Tensor],
        teacher_hidden: dict[str, Tensor],
        numbers: Tensor,
        lengths: Tensor | None,
    ) -> Tensor:
        assert self.bank is not None, "prepare(step) comes before forward"
        negatives = self.bank.draw(numbers, self.num_negatives)
        embeddings = self._embeddings(student_hidden, teacher_hidden, lengths)
        return self.bank(*embeddings, numbers, negatives, temperature=self.temperature)

    def update(  # type: ignore[override]
        self,
        student_hidden: dict[str, Tensor],
        teacher_hidden: dict[str, Tensor],
        numbers: Tensor,
        lengths: Tensor | None,
    ) -> None:
        assert self.bank is not None, "prepare(step) comes before update"
        self.bank.update(*self._embeddings(student_hidden, teacher_hidden, lengths), numbers)

    def _embeddings(
        self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor], lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        assert self.student_embedding is not None
        assert self.teacher_embedding is not None
        student, teacher = self._features(student_hidden, teacher_hidden, lengths)
        return self.student_embedding(student), self.teacher_embedding(teacher)

    def _features(
        self, student_hidden: dict[str, Tensor], teacher_hidden: dict[str, Tensor], lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One flat row an example, `[B, D]`, of each model."""
        [(student, teacher)] = self.pairs(student_hidden, teacher_hidden)
        return flat(upcast(self.examples(student, lengths))), flat(upcast(self.examples(teacher, lengths)))


def _embedding(features: Tensor, width: int) -> nn.Linear:
    return nn.Linear(features.shape[1], width, device=features.device, dtype=features.dtype)
