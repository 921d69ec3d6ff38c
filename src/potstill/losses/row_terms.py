"""Which terms can be computed under an output layer, a chunk of rows at a time (`losses/fused.py`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from torch import Tensor

from potstill.losses.row_math import RowTerm
from potstill.losses.sparse import SparseLogits
from potstill.losses.terms import Term

ROW_FIELDS = {"student_logits", "teacher_logits", "teacher_sparse", "labels"}


def logit_terms(terms: Mapping[str, Term]) -> dict[str, Term]:
    """Those that ask for the student's logits."""
    return {name: term for name, term in terms.items() if "student_logits" in _asked(term)}


def row_terms(terms: Mapping[str, Term]) -> dict[str, RowTerm] | None:
    """All terms that ask for logits, as functions of rows; None where one of them has to see all rows at once.

    That is so of terms that compare rows with each other, that ask for more than logits and labels, or that have
    parameters of their own: these are trained with the gradient of all rows.
    """
    found = logit_terms(terms)
    if not all(_is_by_row(term) for term in found.values()):
        return None
    return {name: RowTerm(_bound(term), term.rows == "labelled", term.form) for name, term in found.items()}


def _is_by_row(term: Term) -> bool:
    remembers = any("logits" in name for name in inspect.signature(term.update).parameters)
    owns = next(term.parameters(), None) is not None
    return {*_asked(term)} <= ROW_FIELDS and not (term.couples_rows or remembers or owns)


def _asked(term: Term) -> tuple[str, ...]:
    return tuple(inspect.signature(term.forward).parameters)


def _bound(term: Term) -> Callable[..., Tensor]:
    def values(student_NC: Tensor, teacher: Tensor | SparseLogits | None, labels_N: Tensor) -> Tensor:
        is_sparse = isinstance(teacher, SparseLogits)
        of_teacher = {
            "teacher_logits": None if is_sparse else teacher,
            "teacher_sparse": teacher if is_sparse else None,
        }
        given = {"student_logits": student_NC, "labels": labels_N, **of_teacher}
        return term(**{name: given[name] for name in _asked(term)})

    return values
