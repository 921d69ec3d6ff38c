"""Several teachers: from their config to one source of signals."""

from __future__ import annotations

from collections.abc import Mapping

from potstill.commands.shared import Source
from potstill.config.schema import TrainConfig
from potstill.errors import UserError
from potstill.models.output_layer import num_columns
from potstill.objective import Objective
from potstill.signals.cached import CachedTeacher
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs
from potstill.signals.remembered import RememberedTeacher
from potstill.signals.several import Member, SeveralTeachers


def several(
    config: TrainConfig,
    source: Source,
    sources: Mapping[str, LiveTeacher | CachedTeacher | RememberedTeacher],
    *,
    split: str = "train",
    combine: str | None = None,
) -> SeveralTeachers:
    """The members as one teacher. sources: by key in the config. split: whose examples it will be asked about.

    Raises UserError where they do not have the same columns, or an example of the split is nobody's.
    """
    if source.task.is_causal:
        _check_columns(sources)
    members, combine = config.teacher.models, combine or config.teacher.combine
    total = sum(member.weight for member in members.values())
    made = {}
    for key, member in members.items():
        name = key.rpartition(".")[2]
        routes = tuple(str(route) for route in member.routes or [name]) if combine == "route" else ()
        made[name] = Member(sources[key], member.weight / total, routes)
    if combine == "route":
        _check_routes(config, source, made, split)
    return SeveralTeachers(made, combine, source.task)  # type: ignore[arg-type]


def refuse_taps(objective: Objective) -> None:
    """UserError where a term asks several teachers for more than logits: nothing says whose hidden states it means."""
    for name, term in objective.terms.items():
        if term.by_layer or term.teacher_taps:
            key = f"loss.term.{name}" + ("" if term.by_layer else ".teacher_tap")
            problem = "is a tap of one teacher, and there are several: their hidden states have no mean."
            fix = "Take one of them, teacher=pretrained teacher.path=..., or terms on logits alone."
            raise UserError(key, list(term.teacher_taps) or type(term).__name__, problem, fix)  # type: ignore[arg-type]
    if objective.needs_teacher in (Needs(), Needs(logits=True)):
        return
    problem = "asks for more than the logits of the teacher, and there are several."
    raise UserError("loss.term", list(objective.terms), problem, "Take terms on logits alone, or one teacher.")


def _check_columns(sources: Mapping[str, LiveTeacher | CachedTeacher | RememberedTeacher]) -> None:
    """Of language models: the columns of classifiers were matched by their labels."""
    sizes = {key: num_columns(source.model) for key, source in sources.items()}
    first_key, first = next(iter(sizes.items()))
    for key, size in sizes.items():
        if None not in (first, size) and size != first:
            problem = f"has {size} columns, and {first_key} has {first}."
            path = sources[key].model.name_or_path  # type: ignore[union-attr]
            raise UserError(f"{key}.path", path, problem, "Take models of one vocabulary.")


def _check_routes(config: TrainConfig, source: Source, members: Mapping[str, Member], split: str) -> None:
    by = config.teacher.route_by
    assert by is not None
    taken = {route for member in members.values() for route in member.routes}
    left = sorted(set(source.data.slice_values(split)[by]) - taken)
    if left:
        shown = ", ".join(left[:8]) + (", ..." if left[8:] else "")
        problem = f"leaves examples of the {split} split without a teacher: those with {by}={shown}."
        fix = f"Give these values to a teacher: '+teacher.members.{next(iter(members))}.routes=[...]'"
        raise UserError("teacher.members", list(members), problem, fix)
