"""A search space: parameters, what every trial shares, and what is searched only where some choice was taken."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from hydra_plugins.potstill_optuna._errors import SweepError, nearest_hint
from hydra_plugins.potstill_optuna._param import Param, bare_key, label, read_param

PARAMS = "hydra.sweeper.params"


@dataclass
class Space:
    """fixed: overrides that every trial gets that comes here, by key. branches: by key and label of a choice."""

    params: dict[str, Param] = field(default_factory=dict)
    fixed: dict[str, Override] = field(default_factory=dict)
    branches: dict[tuple[str, str], Space] = field(default_factory=dict)

    def overrides(self, value_of: Callable[[Param], Any], taken: Mapping[str, str] | None = None) -> Iterator[str]:
        """The overrides of one trial. value_of: called for each parameter that it has, and for no other."""
        taken = dict(taken or {})
        for key, override in self.fixed.items():
            taken[key] = fixed_label(override)
            yield override.input_line or ""
        for key, param in self.params.items():
            value = value_of(param)
            taken[key] = label(value)
            yield param.override(value)
        for branch in self._entered(taken):
            yield from branch.overrides(value_of, taken)

    def points(self, taken: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """Every point of the grid: values by key."""
        for values in itertools.product(*(param.values() for param in self.params.values())):
            point = dict(zip(self.params, values, strict=True))
            fixed = {key: fixed_label(override) for key, override in self.fixed.items()}
            now = {**(taken or {}), **fixed, **{key: label(value) for key, value in point.items()}}
            for parts in itertools.product(*(list(branch.points(now)) for branch in self._entered(now))):
                yield {key: value for part in (point, *parts) for key, value in part.items()}

    def probes(self) -> Iterator[list[str]]:
        """Overrides of few trials that together take every choice there is: what does not compose shows in them."""
        tried: set[tuple[str, ...]] = set()
        for labels in self._turns():

            def pick(param: Param, labels: Mapping[str, str] = labels) -> Any:
                if param.kind != "choice":
                    return param.bounds["low"]
                values = list(param.texts)
                return next((value for value in values if label(value) == labels.get(param.key)), values[0])

            lines = tuple(self.overrides(pick))
            if lines not in tried:
                tried.add(lines)
                yield list(lines)

    def everything(self) -> Iterator[Param]:
        """All parameters, of all branches."""
        yield from self.params.values()
        for branch in self.branches.values():
            yield from branch.everything()

    def describe(self) -> dict[str, Any]:
        """As JSON, to see whether a study goes on with the space it began with."""
        found: dict[str, Any] = {key: param.describe() for key, param in self.params.items()}
        for (key, choice), branch in self.branches.items():
            fixed = {name: str(override.input_line) for name, override in branch.fixed.items()}
            found[f"{key}={choice}"] = {**fixed, **branch.describe()}
        return found

    def _entered(self, taken: Mapping[str, str]) -> list[Space]:
        return [branch for (key, choice), branch in self.branches.items() if taken.get(key) == choice]

    def _turns(self) -> Iterator[dict[str, str]]:
        """Labels, by key, of the choices in which a probe differs from the first one of each."""
        yield {}
        for param in self.params.values():
            yield from ({param.key: other} for other in (param.labels() or [])[1:])
        for (key, choice), branch in self.branches.items():
            yield from ({key: choice, **turn} for turn in branch._turns())


def read_space(params: Mapping[str, Any], arguments: Sequence[str], parser: OverridesParser) -> Space:
    """From the `params` of a config and the overrides of the command line, which go before.

    Raises SweepError where something cannot be searched; Hydra's own error for an argument that is no override.
    """
    space = _read(params, parser, PARAMS)
    for override in parser.parse_overrides(list(arguments)):
        _set(space, override)
    _check(space, {}, set())
    if not any(True for _ in space.everything()):
        fix = "For example: 'optim.optimizer.lr=tag(log,interval(1.0e-4,1.0e-1))'"
        raise SweepError(PARAMS, {}, "leaves nothing to search: every trial would be the same.", fix)
    return space


def fixed_label(override: Override) -> str:
    return "" if override.is_delete() else label(override.value())


def _read(params: Mapping[str, Any], parser: OverridesParser, where: str) -> Space:
    space = Space()
    for name, node in params.items():
        here = f"{where}.{name}"
        if isinstance(node, Mapping):
            condition = _parse(str(name), here, parser) if "=" in str(name) else None
            if condition is None or condition.is_sweep_override():
                fix = "Write nested keys with dots; below KEY=CHOICE stands what is searched only then."
                raise SweepError(here, dict(node), "names no choice.", fix)
            space.branches[bare_key(condition), fixed_label(condition)] = _read(node, parser, here)
        elif isinstance(node, list):
            fix = f"Write choice({','.join(map(label, node))}), or quote the list."
            raise SweepError(here, node, "is a list: one value, or several to choose from?", fix)
        else:
            _add(space, _parse(f"{name}={label(node)}", here, parser), here)
    return space


def _parse(text: str, where: str, parser: OverridesParser) -> Override:
    try:
        [override] = parser.parse_overrides([text])
    except HydraException as error:
        lines = [line for line in str(error).strip().splitlines() if not line.startswith("See http")]
        reason = " ".join(lines[1:] or lines)
        fix = "It is Hydra's override grammar: choice(a,b), range(1,9), interval(0,1), tag(log,interval(1,9))."
        raise SweepError(where, text.partition("=")[2], f"cannot be read: {reason}", fix) from error
    return override


def _add(space: Space, override: Override, where: str) -> None:
    key = bare_key(override)
    space.params.pop(key, None)
    space.fixed.pop(key, None)
    if override.is_sweep_override():
        space.params[key] = read_param(override, where)
    else:
        space.fixed[key] = override


def _set(space: Space, override: Override) -> None:
    """Put an override of the command line where its key already stands, in whichever branch; else at the top."""
    key = bare_key(override)
    holders = [holder for holder in _spaces(space) if key in holder.params or key in holder.fixed]
    for holder in holders or [space]:
        _add(holder, override, key)


def _spaces(space: Space) -> Iterator[Space]:
    yield space
    for branch in space.branches.values():
        yield from _spaces(branch)


def _check(space: Space, above: Mapping[str, Param | Override], path: set[str]) -> None:
    """Refuse conditions that can never hold, and keys that would have two meanings."""
    known = {**above, **space.fixed, **space.params}
    if twice := path & (space.params.keys() | space.fixed.keys()):
        key = min(twice)
        raise SweepError(key, "", "stands in a branch and above it.", "Leave one of them out.")
    for (key, choice), branch in space.branches.items():
        where = f"{PARAMS}.{key}={choice}"
        if key not in known:
            problem = "depends on a choice that this study does not make."
            raise SweepError(where, choice, problem, f"{nearest_hint(key, known)} Or choose it: {key}={choice}")
        condition = known[key]
        labels = condition.labels() if isinstance(condition, Param) else None
        if labels is not None and choice not in labels:
            raise SweepError(where, choice, "can never be taken.", nearest_hint(choice, labels))
        _check(branch, known, path | space.params.keys() | space.fixed.keys())
    seen: dict[str, Param] = {}
    for param in space.everything():
        if seen.setdefault(param.key, param) != param:
            problem = f"is {seen[param.key].describe()} in one branch and {param.describe()} in another."
            raise SweepError(param.key, "", problem, "A study knows one space a name: make them the same.")
