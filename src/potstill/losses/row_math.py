"""What happens to a chunk's logits between the matrix products: values, gradient and diagnostics of its rows.

Terms with a known gradient share what they need of a block (`losses/row_forms.py`); any other is differentiated by
autograd on the same block. A block is small enough that a CPU's cache holds it through all passes.
"""

# N rows of a chunk, R rows of a block, C classes (or vocabulary), T terms

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from potstill.losses import sparse_rows
from potstill.losses.heads import Finish, HeadInput
from potstill.losses.precision import upcast
from potstill.losses.row_forms import Block, Form, blocks, centred, values_and_gradient
from potstill.losses.sparse import SparseLogits, merged

HAS_TRITON = importlib.util.find_spec("triton") is not None
DIAGNOSED = ("entropy", "kl", "agreement")  # of a teacher of which all is known

Target = Tensor | SparseLogits | None


@dataclass(frozen=True)
class RowTerm:
    """One part of the loss: per row, `values(student_NC, teacher, labels_N)` of `[N]`, differentiable in the first.

    labelled: rows without a label do not count. form: where the gradient is known in closed form; `values` is then the
        reference that it was derived from.
    """

    values: Callable[[Any, Any, Any], Tensor] = field(compare=False)
    labelled: bool = False
    form: Form | None = None


@dataclass(frozen=True)
class RowMath:
    """The row math of one objective under one pair of heads. Equal ones share what `torch.compile` made of them.

    teacher: None where its logits are given, and not to be written to.
    """

    terms: tuple[RowTerm, ...]
    student: Finish
    teacher: Finish | None
    diagnose: bool

    def __call__(
        self,
        student_NC: Tensor,
        target: Target,
        labels_N: Tensor,
        weights_TN: Tensor,
        *,
        dtype: torch.dtype,
        compiled: bool = False,
    ) -> tuple[list[Tensor], Tensor]:
        """Values of every term, then the diagnostics, `[N]` each; the gradient in the student's products, in `dtype`.

        student_NC: products, used up. target: the teacher's products, used up; or its logits, or top-k. weights_TN:
        of each term's values in the loss.
        """
        weights, forms = self._weights(weights_TN, labels_N), [term.form for term in self.terms]
        if kernel := self._kernel(student_NC, target):
            heads = self.student, self.teacher or Finish()
            diagnose = self.diagnose and target is not None
            return kernel.run(forms, heads, student_NC, target, labels_N, weights, diagnose=diagnose, dtype=dtype)
        if isinstance(target, SparseLogits):
            compiled, num_classes = False, student_NC.shape[-1]
            if sparse_rows.supports(forms, self.student, target, num_classes, diagnose=self.diagnose):
                given = student_NC, target, labels_N, weights
                return sparse_rows.run(forms, self.student, *given, diagnose=self.diagnose), student_NC.to(dtype)  # type: ignore[arg-type]
        block = _compiled(self) if compiled and all(forms) else self.block
        parts = [
            block(student_NC[rows], taken(target, rows), labels_N[rows], weights_TN[:, rows])
            for rows in blocks(student_NC)
        ]
        return [torch.cat(each) for each in zip(*parts, strict=True)], student_NC.to(dtype)

    def _kernel(self, student_NC: Tensor, target: Target) -> ModuleType | None:
        """Where there is one for this device and these terms."""
        plain = student_NC.dtype == torch.float32 and not isinstance(target, SparseLogits)
        if not (student_NC.is_cuda and plain and HAS_TRITON):
            return None
        from potstill.losses import row_kernel

        return row_kernel if row_kernel.supports([term.form for term in self.terms]) else None

    def block(self, student_RC: Tensor, target: Target, labels_R: Tensor, weights_TR: Tensor) -> list[Tensor]:
        """Values and diagnostics, `[R]` each. `student_RC`, products, becomes the gradient in them."""
        logits_RC = self.student.logits(upcast(student_RC))
        slope = self.student.slope(logits_RC)
        target = self._logits(target)
        weights = self._weights(weights_TR, labels_R)
        forms = [_form_beside(term, target) for term in self.terms]
        known = {number: form for number, form in enumerate(forms) if form}
        others = {  # before the logits are centred, which a loss of theirs may see
            number: _by_autograd(term, logits_RC, target, labels_R, weights[number])
            for number, term in enumerate(self.terms)
            if number not in known
        }
        diagnosed = self._diagnosed_sparsely(logits_RC, target)
        block = Block(centred(logits_RC), centred(target) if isinstance(target, Tensor) else None, labels_R)
        found, gradient_RC = values_and_gradient(block, [*known.values()], [weights[number] for number in known])
        values = dict(zip(known, found, strict=True))
        for number, (values_R, own_RC) in others.items():
            values[number] = values_R
            gradient_RC += own_RC
        if not isinstance(slope, float) or slope != 1.0:
            gradient_RC.mul_(slope)
        if self.diagnose and isinstance(target, Tensor):
            diagnosed = _diagnosed(block)
        student_RC.copy_(gradient_RC)
        return [values[number] for number in range(len(self.terms))] + diagnosed

    def _weights(self, weights_TR: Tensor, labels_R: Tensor) -> list[Tensor]:
        """What each row's value counts for, `[R]`, for each term."""
        has_label_R = labels_R >= 0
        return [w_R * has_label_R if term.labelled else w_R for term, w_R in zip(self.terms, weights_TR, strict=True)]

    def _diagnosed_sparsely(self, logits_RC: Tensor, target: Target) -> list[Tensor]:
        if not (self.diagnose and isinstance(target, SparseLogits)):
            return []
        num_others = logits_RC.shape[-1] - target.ids.shape[-1]
        return sparse_rows.diagnosed(merged(logits_RC, target), logits_RC.amax(dim=-1), target, num_others)

    def _logits(self, target: Target) -> Target:
        """The teacher's, to be centred in place."""
        if not isinstance(target, Tensor):
            return target
        return upcast(target).clone() if self.teacher is None else self.teacher.logits(upcast(target))


def taken(target: Any, rows: slice | Tensor) -> Any:
    """Some rows of whatever is known of a teacher."""
    if target is None:
        return None
    return target.take(rows) if isinstance(target, HeadInput | SparseLogits) else target[rows]


def diagnosed_names(target: Any) -> tuple[str, ...]:
    """What is found of each row beside the values, where it is asked for and there is such a teacher."""
    if isinstance(target, SparseLogits):
        return sparse_rows.diagnosed_names(target)
    return () if target is None else DIAGNOSED


def _form_beside(term: RowTerm, target: Target) -> Form | None:
    """The term's form, where it is one of `row_forms`: those have all of a teacher's logits, or no teacher."""
    is_known = not isinstance(target, SparseLogits) or (term.form is not None and term.form.kind == "ce")
    return term.form if is_known else None


@functools.cache
def _compiled(math: RowMath) -> Callable[..., list[Tensor]]:
    return torch.compile(math.block)


def _by_autograd(
    term: RowTerm, logits_RC: Tensor, target: Target, labels_R: Tensor, weight_R: Tensor
) -> tuple[Tensor, Tensor]:
    """A term's values, and the gradient of their weighted sum."""
    leaf_RC = logits_RC.detach().requires_grad_()
    with torch.enable_grad():
        values_R = term.values(leaf_RC, target, labels_R)
        (gradient_RC,) = torch.autograd.grad((values_R * weight_R).sum(), leaf_RC)
    return values_R.detach(), gradient_RC


def _diagnosed(block: Block) -> list[Tensor]:
    """In the order of `DIAGNOSED`: nats, nats, and 1.0 where the teacher's first class is the student's."""
    assert block.target is not None
    kl_R, entropy_R = block.kl_and_entropy(1.0)
    # Both are centred: a sum of 0 is a class that is the first of both. argmax would be four times as slow.
    agrees_R = (block.student + block.target).amax(dim=-1) == 0.0
    return [entropy_R, kl_R, agrees_R.to(entropy_R.dtype)]
