"""The objective: the weighted sum of terms, each divided once by the number of its rows."""

# N rows, C classes, P attended positions (or images), D width

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from potstill.errors import UserError, nearest_hint
from potstill.losses.reduce import mean_over
from potstill.losses.terms import Rows, Term
from potstill.signals.protocol import Needs


@dataclass
class Step:
    """What terms may ask for, of one micro-batch.

    student_logits, teacher_logits: `[N, C]`, one row per scored position; None where no term needs them.
    labels: `[N]`, `IGNORE` where a row has no gold label.
    student_hidden, teacher_hidden: by module path, `[P, D]` (text: attended positions) or `[P, ...]` (images).
    """

    student_logits: Tensor | None
    teacher_logits: Tensor | None
    labels: Tensor
    student_hidden: dict[str, Tensor] = field(default_factory=dict)
    teacher_hidden: dict[str, Tensor] = field(default_factory=dict)


STEP_FIELDS = tuple(each.name for each in fields(Step))


class NonFiniteLossError(RuntimeError):
    """A term is NaN or infinite. `term` is its name; `rows` the numbers of its bad rows within the micro-batch.

    `rows` is empty where every row is finite and only their sum is not.
    """

    def __init__(self, term: str, rows: list[int]) -> None:
        self.term, self.rows = term, rows
        shown = ", ".join(map(str, rows[:10])) + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")
        super().__init__(f"loss.term.{term} is not finite: {f'rows {shown}' if rows else 'its sum overflows'}")


class Objective(nn.Module):
    """Binds each term to the fields of a Step, divides it once, and adds the weighted terms up.

    terms: by name, the keys under `loss.term`. Raises UserError where a term has impossible options, or asks for a
    field that no Step has.
    """

    def __init__(self, terms: Mapping[str, Term]) -> None:
        super().__init__()
        if not terms:
            raise UserError("loss.term", {}, "leaves nothing to train on.", "Choose a loss: loss=ce.")
        for name, term in terms.items():
            _admit(name, term)
        self.terms = nn.ModuleDict(terms)

    @property
    def needs_student(self) -> Needs:
        """What the terms ask of the student."""
        return self._needs("student_logits", "student_taps")

    @property
    def needs_teacher(self) -> Needs:
        """What the terms ask of the teacher; false where they ask for nothing."""
        return self._needs("teacher_logits", "teacher_taps")

    @property
    def labelled_only(self) -> bool:
        """Whether examples without a gold label are of no use to any term."""
        return all(term.rows == "labelled" for term in self._terms().values())

    def prepare(self, step: Step) -> None:
        """Show every term one sample Step, before the optimizer is built. UserError where shapes cannot match."""
        for term in self._terms().values():
            term.prepare(**_bind(term.prepare, step))

    def forward(self, step: Step, total_rows: Mapping[str, Tensor | int]) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's share of the loss, a scalar, and of each term before weighting, detached scalars.

        total_rows: by kind of row (`labelled`, `scored`, `positions`), the count over all micro-batches and ranks.
        Shares add up to the loss of the global batch, in value and gradient. Raises NonFiniteLossError.
        """
        terms = self._terms()
        values = {name: term(**_bind(term.forward, step)) for name, term in terms.items()}
        shares = {name: mean_over(value, total_rows[terms[name].rows]) for name, value in values.items()}
        _refuse_non_finite(values, shares)
        loss = torch.stack([terms[name].weight * share for name, share in shares.items()]).sum()
        return loss, {name: share.detach() for name, share in shares.items()}

    def _terms(self) -> dict[str, Term]:
        return cast("dict[str, Term]", dict(self.terms.items()))

    def _needs(self, logits: str, taps: str) -> Needs:
        terms = self._terms().values()
        paths = {path: None for term in terms for path in getattr(term, taps)}  # a dict keeps order, drops repeats
        return Needs(any(logits in _parameters(term.forward) for term in terms), tuple(paths))


def _parameters(method: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(method).parameters)


def _bind(method: Callable[..., Any], step: Step) -> dict[str, Any]:
    bound = {name: getattr(step, name) for name in _parameters(method)}
    missing = [name for name, value in bound.items() if value is None]
    assert not missing, f"the step lacks {missing}"
    return bound


def _admit(name: str, term: Term) -> None:
    """Name a term and refuse it where it cannot work."""
    key = f"loss.term.{name}._target_"
    target = f"{type(term).__module__}.{type(term).__qualname__}"
    if not isinstance(term, Term):
        raise UserError(key, target, "is no Term.", "Subclass potstill.losses.terms.Term.")
    if term.rows not in get_args(Rows):
        raise UserError(
            key,
            target,
            f"is averaged over '{term.rows}', which nobody counts.",
            nearest_hint(term.rows, get_args(Rows)),
        )
    for parameter in (*_parameters(term.forward), *_parameters(term.prepare)):
        if parameter not in STEP_FIELDS:
            raise UserError(
                key, target, f"asks for '{parameter}', no field of Step.", nearest_hint(parameter, STEP_FIELDS)
            )
    term.name = name
    term.validate()


def _refuse_non_finite(values: dict[str, Tensor], shares: dict[str, Tensor]) -> None:
    """One device synchronisation a micro-batch; rows are looked for only when there is something to find."""
    if torch.isfinite(torch.stack(list(shares.values())).detach()).all():
        return
    name = next(name for name, share in shares.items() if not torch.isfinite(share))
    raise NonFiniteLossError(name, (~torch.isfinite(values[name])).nonzero().flatten().tolist())
