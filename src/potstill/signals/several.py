"""Several teachers that answer as one."""

# N rows, C classes

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from potstill.data.batch import Batch
from potstill.losses.distributions import log_mixture
from potstill.models.task import Task
from potstill.signals.cached import CachedTeacher
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, Opinion, Signal
from potstill.signals.remembered import RememberedTeacher

Combine = Literal["probabilities", "losses", "route"]


@dataclass(frozen=True)
class Member:
    """One of several teachers. weight: of all, which sum to 1. routes: of the examples that are its own."""

    source: LiveTeacher | CachedTeacher | RememberedTeacher
    weight: float
    routes: tuple[str, ...] = ()


class SeveralTeachers:
    """A source of signals made of others.

    combine: `probabilities`: the logits of the weighted mean of their distributions at temperature 1, which a term then
        tempers as it does those of any teacher. `losses`: none; the objective averages what each term is for each
        teacher. `route`: of each example, those of the teacher that has its route.
    """

    def __init__(self, members: Mapping[str, Member], combine: Combine, task: Task) -> None:
        self.members, self.combine, self.task = dict(members), combine, task
        self.model = nn.ModuleList([member.source.model for member in members.values()])

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        """Logits only: hidden states of several models have no mean, and were refused."""
        assert not needs.taps
        if not needs:
            return Signal()
        opinions = self._by_route(batch) if self.combine == "route" and len(batch) else self._of_all(batch)
        return Signal(self._combined(opinions), members=opinions)

    def to(self, device: torch.device) -> SeveralTeachers:
        self.model.to(device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """What its members remember, by name."""
        return {name: memory.state_dict() for name, memory in self._memories().items()}

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for name, memory in self._memories().items():
            memory.load_state_dict([state.get(name, {}) for state in states])

    def _memories(self) -> dict[str, RememberedTeacher]:
        sources = {name: member.source for name, member in self.members.items()}
        return {name: source for name, source in sources.items() if isinstance(source, RememberedTeacher)}

    def _of_all(self, batch: Batch) -> dict[str, Opinion]:
        logits = {name: _logits(member, batch) for name, member in self.members.items()}
        return {
            name: Opinion(each, torch.arange(len(each), device=each.device), self.members[name].weight)
            for name, each in logits.items()
        }

    def _by_route(self, batch: Batch) -> dict[str, Opinion]:
        """Every member is named, also one that has no example here: what is logged must not depend on the batch."""
        example_N = self._example_of_row(batch)
        opinions, none = {}, example_N[:0]
        for name, member in self.members.items():
            chosen = [number for number, route in enumerate(batch.routes) if route in member.routes]
            if chosen:
                rows = torch.isin(example_N, torch.tensor(chosen, device=example_N.device)).nonzero().flatten()
                opinions[name] = Opinion(_logits(member, batch.take(chosen)), rows, member.weight)
        nothing = next(iter(opinions.values())).logits[:0]
        return {name: opinions.get(name, Opinion(nothing, none, self.members[name].weight)) for name in self.members}

    def _example_of_row(self, batch: Batch) -> Tensor:
        rows_N = self.task.scored_rows(batch)
        if rows_N is None:
            return torch.arange(len(batch), device=batch.labels.device)
        return rows_N // batch.labels.shape[1]

    def _combined(self, opinions: Mapping[str, Opinion]) -> Tensor | None:
        logits = [opinion.logits for opinion in opinions.values()]
        if self.combine == "losses":
            return None
        if len(logits) == 1:
            return logits[0]
        if self.combine == "probabilities":
            return log_mixture(logits, [opinion.weight for opinion in opinions.values()])
        rows = torch.cat([opinion.rows for opinion in opinions.values()])
        return torch.cat(logits)[rows.argsort()] if len(rows) else logits[0]


def _logits(member: Member, batch: Batch) -> Tensor:
    logits = member.source.signal(batch, Needs(logits=True)).logits
    assert logits is not None
    return logits
