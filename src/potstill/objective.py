"""The objective: the weighted sum of terms, each divided once by the number of its rows."""

# B examples, K texts of an example, N rows, C classes, P attended positions (or images), D width

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from potstill.errors import UserError, nearest_hint
from potstill.losses.fused import Fused, Options, fused
from potstill.losses.heads import HeadInput
from potstill.losses.reduce import mean_over, weight_of_row
from potstill.losses.row_math import RowTerm
from potstill.losses.row_terms import row_terms
from potstill.losses.schedules import Schedule
from potstill.losses.sparse import SparseLogits
from potstill.losses.terms import Rows, Term
from potstill.signals.protocol import Needs, Opinion


@dataclass
class Step:
    """What terms may ask for, of one micro-batch.

    student_logits, teacher_logits: `[N, C]`, one row per scored position; None where no term needs them.
    labels: `[N]`, `IGNORE` where a row has no gold label.
    numbers: `[B]`, each example's place among the `num_examples` of the training set.
    student_hidden, teacher_hidden: by module path, `[P, D]` (text: attended positions) or `[P, ...]` (images).
    student_embeddings, teacher_embeddings: `[B, K, D]`, one vector per text; a row is an example.
    members: by name, what each of several teachers says. Without `teacher_logits` beside it, a term that asks for these
        is the weighted mean of what it is for each teacher.
    lengths: attended positions of each example, `[B]`, in the order of `P`; None for images, which are not padded.
    teacher_sparse: instead of `teacher_logits`, of a teacher of which only some classes were stored.

    Not for terms: student_head, teacher_head: instead of logits, the rows they would be made of, of which the objective
    makes a chunk at a time. compared: what it saw of both models' logits on the way (`fused.Fused.diagnostics`).
    weights: by kind of row, what each counts beside the others; empty where all count alike.
    """

    student_logits: Tensor | None
    teacher_logits: Tensor | None
    labels: Tensor
    student_hidden: dict[str, Tensor] = field(default_factory=dict)
    teacher_hidden: dict[str, Tensor] = field(default_factory=dict)
    student_embeddings: Tensor | None = None
    teacher_embeddings: Tensor | None = None
    numbers: Tensor | None = None
    num_examples: int | None = None
    members: dict[str, Opinion] = field(default_factory=dict)
    lengths: Tensor | None = None
    teacher_sparse: SparseLogits | None = None
    student_head: HeadInput | None = None
    teacher_head: HeadInput | None = None
    compared: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def with_some_logits(self, num_rows: int = 2) -> Step:
        """Where there are only rows to make them of, logits of the first few: what they look like, at little cost."""
        made = {
            f"{who}_logits": rows.take(slice(num_rows)).logits()
            for who, rows in (("student", self.student_head), ("teacher", self.teacher_head))
            if rows is not None
        }
        return replace(self, **made)  # type: ignore[arg-type]


NOT_FOR_TERMS = ("student_head", "teacher_head", "compared", "weights")
STEP_FIELDS = tuple(each.name for each in fields(Step) if each.name not in NOT_FOR_TERMS)


@dataclass(frozen=True)
class Fault:
    """A term that is NaN or infinite. rows: its bad rows within the micro-batch; none, where only their sum is."""

    term: str
    rows: tuple[int, ...]

    def __str__(self) -> str:
        shown = ", ".join(map(str, self.rows[:10])) + (f" and {len(self.rows) - 10} more" if self.rows[10:] else "")
        return f"loss.term.{self.term} is not finite: {f'rows {shown}' if self.rows else 'its sum overflows'}"


class Objective(nn.Module):
    """Binds each term to the fields of a Step, divides it once, and adds the weighted terms up.

    terms: by name, the keys under `loss.term`. schedules: by the same names, of those options that change with the
    step. Raises UserError where a term has impossible options, or asks for a field that no Step has.
    """

    def __init__(
        self, terms: Mapping[str, Term], schedules: Mapping[str, Mapping[str, Schedule]] | None = None
    ) -> None:
        super().__init__()
        if not terms:
            raise UserError("loss.term", {}, "leaves nothing to train on.", "Choose a loss: loss=ce.")
        self.schedules = {name: dict(options) for name, options in (schedules or {}).items() if options}
        for name, term in terms.items():
            _admit(name, term)
            _admit_schedules(term, self.schedules.get(name, {}))
        self.terms = nn.ModuleDict(terms)
        self._terms = dict(terms)  # the same, typed, and found without a walk through modules
        self._asked = {name for term in terms.values() for name in _parameters(term.forward)}
        self.fusing = Options()
        self.compared: dict[str, Tensor] = {}  # of the last step, for its `Step.compared`; FSDP hands `forward` a copy

    @property
    def needs_student(self) -> Needs:
        """What the terms ask of the student."""
        return self._needs("student")

    @property
    def needs_teacher(self) -> Needs:
        """What the terms ask of the teacher; false where they ask for nothing."""
        return self._needs("teacher")

    @property
    def can_fuse(self) -> bool:
        """Whether the terms that ask for logits can take them a chunk of rows at a time."""
        return bool(row_terms(self._terms))

    @property
    def is_taught(self) -> bool:
        """Whether any term asks a teacher; known before the taps of layers are (`Term.locate`)."""
        return any(name.startswith("teacher_") for name in self._asked)

    @property
    def labelled_only(self) -> bool:
        """Whether examples without a gold label are of no use to any term."""
        return all(term.rows == "labelled" for term in self._terms.values())

    def begin_step(self, step: int, num_steps: int) -> dict[str, float]:
        """Give the terms the options that step number `step` of `num_steps` trains with, and say which these are.

        Returns `{option/term: value}`.
        """
        values = {}
        for name, options in self.schedules.items():
            for option, schedule in options.items():
                values[f"{option}/{name}"] = value = schedule.at(step, num_steps)
                setattr(self.terms[name], option, value)
        return values

    def report(self) -> dict[str, Tensor]:
        """What the terms learned by themselves, after a forward pass: `{value/term: number}`."""
        terms = self._terms.items()
        return {f"{value}/{name}": number for name, term in terms for value, number in term.report().items()}

    def prepare(self, step: Step) -> None:
        """Show every term one sample Step, before the optimizer is built. UserError where shapes cannot match."""
        for term in self._terms.values():
            for _, view in _views(term.prepare, step):
                term.prepare(**_bind(term.prepare, view))

    def check_rows(self, num_rows: Mapping[str, int]) -> None:
        """Refuse batches of so many rows, by kind, where a term cannot take them. After `prepare`; raises UserError."""
        for term in self._terms.values():
            term.check_rows(num_rows)

    def forward(self, step: Step, total_rows: Mapping[str, Tensor | int]) -> tuple[Tensor, dict[str, Tensor]]:
        """The micro-batch's share of the loss, a scalar, and of each term before weighting, detached scalars.

        total_rows: by kind of row (`labelled`, `scored`, ...), the count over all micro-batches and ranks.
        Shares add up to the loss of the global batch, in value and gradient.
        """
        beside = self._shares_beside(step, total_rows)
        parts = [*self.weighted(beside).values()]
        if step.student_head is not None:
            found = self._fused(step, total_rows, self._row_terms(), weighted=True)
            self.compared = found.diagnostics
            parts.append(found.loss)
            beside |= {name: self._mean(name, values_N, step, total_rows) for name, values_N in found.values.items()}
        return torch.stack(parts).sum(), {name: beside[name].detach() for name in self.terms}

    def weighted(self, shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What each of `shares` adds to the loss."""
        terms = self._terms
        return {name: terms[name].weight * share for name, share in shares.items()}

    def shares(self, step: Step, total_rows: Mapping[str, Tensor | int]) -> dict[str, Tensor]:
        """The micro-batch's share of each term before weighting, scalars with their graph."""
        shares = self._shares_beside(step, total_rows)
        if step.student_head is not None:
            with torch.no_grad():
                self.compared = self._fused(step, {}, {}, weighted=False).diagnostics
            for name, term in self._row_terms().items():
                shares[name] = self._fused(step, total_rows, {name: term}, weighted=False).loss
        return {name: shares[name] for name in self.terms}

    @torch.no_grad()
    def update(self, step: Step) -> None:
        """Let terms with a memory take in what the models gave, once the gradient of `step` was taken."""
        for term in self._terms.values():
            term.update(**_bind(term.update, step))

    @torch.no_grad()
    def find_fault(self, step: Step) -> Fault | None:
        """The first term that is not finite on `step`, and where; computes the terms once more."""
        values_by_term = dict(self._values(step))
        if step.student_head is not None:
            rows = {term.rows: 1 for term in self._terms.values()}
            values_by_term |= self._fused(step, rows, self._row_terms(), weighted=False).values
        for name in self.terms:
            values = values_by_term[name]
            bad_rows = (~torch.isfinite(values)).nonzero().flatten().tolist()
            if bad_rows or not torch.isfinite(values.sum()):
                return Fault(name, tuple(bad_rows))
        return None

    def _values(self, step: Step) -> Iterator[tuple[str, Tensor]]:
        """Of every term that finds all it asks for in `step`, and needs no logits that are still to be made."""
        fused_names = () if step.student_head is None else self._row_terms()
        return ((name, _value(term, step)) for name, term in self._terms.items() if name not in fused_names)

    def _shares_beside(self, step: Step, total_rows: Mapping[str, Tensor | int]) -> dict[str, Tensor]:
        return {name: self._mean(name, values, step, total_rows) for name, values in self._values(step)}

    def _mean(self, name: str, values: Tensor, step: Step, total_rows: Mapping[str, Tensor | int]) -> Tensor:
        """Weights of rows are on average 1 over the data, so that the count of rows stays what to divide by."""
        rows = self._terms[name].rows
        return mean_over(values * step.weights[rows] if step.weights else values, total_rows[rows])

    @property
    def _is_tempered_by_step(self) -> bool:
        """Then what is compiled for one temperature would be compiled anew at every step."""
        return any(set(options) - {"weight"} for options in self.schedules.values())

    def _row_terms(self) -> dict[str, RowTerm]:
        found = row_terms(self._terms)
        assert found is not None, "a term needs all rows at once"
        return found

    def _fused(
        self, step: Step, total_rows: Mapping[str, Tensor | int], terms: Mapping[str, RowTerm], *, weighted: bool
    ) -> Fused:
        """Terms on logits that are made a chunk at a time, each divided by its rows, with the diagnostics of a Step."""
        assert step.student_head is not None
        own = self._terms
        weights = {
            name: weight_of_row(own[name].weight if weighted else 1.0, total_rows[own[name].rows]) for name in terms
        }
        given = (step.teacher_head, step.teacher_sparse, step.teacher_logits)
        teacher = next((each for each in given if each is not None), None)
        options = replace(self.fusing, compiled=self.fusing.compiled and not self._is_tempered_by_step)
        return fused(
            step.student_head,
            teacher,
            step.labels,
            terms,
            weights,
            weights_N=step.weights.get("scored"),
            diagnose=weighted or not terms,
            options=options,
        )

    def refuse_sparse(self, key: str, value: str, fix: str) -> None:
        """Raises UserError under `key` where a term needs the logits of all classes, and only some are kept."""
        for name, term in self._terms.items():
            if _asks(term, "teacher_logits") and not _asks(term, "teacher_sparse"):
                problem = (
                    f"knows some classes only, and loss.term.{name} ({type(term).__name__}) needs the logits of all."
                )
                raise UserError(key, value, problem, fix)

    def refuse_absent(self, output: Needs, task: str) -> None:
        """Raises UserError where a term asks for logits or embeddings, and `output` of the task's models has none."""
        for kind in ("logits", "embeddings"):
            names = [name for name, term in self._terms.items() if _asks(term, f"student_{kind}")]
            if names and not getattr(output, kind):
                problem = f"compares {kind}, which the models of data.task={task} do not give."
                raise UserError("loss.term", names[0], problem, "Choose a loss for the task: see docs/losses.md")

    def _needs(self, who: str) -> Needs:
        terms = self._terms.values()
        paths = {path: None for term in terms for path in getattr(term, f"{who}_taps")}  # in order, without repeats
        return Needs(taps=tuple(paths), **{kind: f"{who}_{kind}" in self._asked for kind in ("logits", "embeddings")})


def _bound(term: Term) -> tuple[Callable[..., Any], ...]:
    """The methods that get fields of a Step, by the names of their parameters."""
    return term.forward, term.prepare, term.update


def _parameters(method: Callable[..., Any]) -> tuple[str, ...]:
    """Without `self`."""
    function = getattr(method, "__func__", method)
    return _names(function)[function is not method :]


@functools.lru_cache(maxsize=1024)
def _names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Kept: every step binds every term, and looking a signature up takes as long as a small term's arithmetic."""
    return tuple(inspect.signature(function).parameters)


def _asks(term: Term, name: str) -> bool:
    return name in _parameters(term.forward)


def _value(term: Term, step: Step) -> Tensor:
    """Per row. Autocast, which is for models, would take matrix products of terms and projectors down to 16 bits."""
    with torch.autocast(step.labels.device.type, enabled=False):
        values = [weight * term(**_bind(term.forward, view)) for weight, view in _views(term.forward, step)]
    return functools.reduce(torch.add, values)


def _views(method: Callable[..., Any], step: Step) -> list[tuple[float, Step]]:
    """The step as `method` sees it: once, or, where the losses to several teachers are averaged, once for each."""
    if step.teacher_logits is not None or "teacher_logits" not in _parameters(method) or not step.members:
        return [(1.0, step)]
    return [(each.weight, replace(step, teacher_logits=each.logits)) for each in step.members.values()]


def _bind(method: Callable[..., Any], step: Step) -> dict[str, Any]:
    bound = {name: getattr(step, name) for name in _parameters(method)}
    may_be_none = {"lengths", "teacher_sparse"} | ({"teacher_logits"} if bound.get("teacher_sparse") else set())
    missing = [name for name, value in bound.items() if value is None and name not in may_be_none]
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
    for parameter in (name for method in _bound(term) for name in _parameters(method)):
        if parameter not in STEP_FIELDS:
            raise UserError(
                key, target, f"asks for '{parameter}', no field of Step.", nearest_hint(parameter, STEP_FIELDS)
            )
    term.name = name
    term.validate()


def _admit_schedules(term: Term, schedules: Mapping[str, Schedule]) -> None:
    """Refuse a schedule with an end that the term does not take; between its ends it takes what it takes at both."""
    for option, schedule in schedules.items():
        for value in (schedule.end, schedule.start):  # the start stays
            setattr(term, option, value)
            term.validate()
