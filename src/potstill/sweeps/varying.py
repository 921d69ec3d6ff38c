"""What differs between runs: the keys a reader should see, and those that only follow from a choice of group."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from potstill.sweeps.results import Result

ABSENT = "-"  # stands for the value of a key that a run does not have
SEED = "seed"


@dataclass(frozen=True)
class Varying:
    """shown: keys and groups whose values differ between runs, the seed left out; those that were swept come first.

    implied: keys that differ only as a shown group's options do (`loss.term.kd.weight`, where `loss` is `kd` or `ce`).
    """

    shown: list[str]
    implied: list[str]

    def values(self, result: Result) -> dict[str, Any]:
        return {key: value_of(result, key) for key in self.shown}


def varying(results: Sequence[Result]) -> Varying:
    """Keys of configs, and groups, on which `results` differ."""
    typed = list(dict.fromkeys(text.partition("=")[0].lstrip("+") for each in results for text in each.overrides))
    keys = _differing({name for each in results for name in each.config if name != SEED}, results)
    chosen = _differing({name for each in results for name in each.choices}, results)
    groups = [group for group in chosen if any(_decides(group, key, results) for key in keys)]
    asked = [key for key in typed if key in groups or key in keys]
    shown = asked + [key for key in groups if key not in asked and not _follows(key, asked, results)]
    deciding = [key for key in shown if key in groups]
    implied = [key for key in keys if key not in shown and _follows(key, deciding, results)]
    return Varying(shown + [key for key in keys if key not in (*shown, *implied)], implied)


def value_of(result: Result, key: str) -> Any:
    return result.choices.get(key, result.config.get(key, ABSENT))


def identity(result: Result) -> str:
    """The same for runs that differ in nothing but their seed, their place and their name."""
    return json.dumps({key: comparable(value) for key, value in result.config.items() if key != SEED}, sort_keys=True)


def comparable(value: Any) -> str:
    """1 and 1.0 are one value, 1 and true are two."""
    return json.dumps(float(value) if type(value) is int else value, default=str)


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key -> the shortest end of it that ends no other of `keys`: `temperature` for `loss.term.kd.temperature`."""
    return {key: next(end for end in _ends(key) if _is_only(end, key, keys)) for key in keys}


def _differing(keys: Iterable[str], results: Sequence[Result]) -> list[str]:
    order = {name: None for each in results for name in (*each.choices, *each.config)}
    wanted = set(keys)
    return [key for key in order if key in wanted and len({comparable(value_of(each, key)) for each in results}) > 1]


def _follows(key: str, deciding: Sequence[str], results: Sequence[Result]) -> bool:
    """Whether one of `deciding` says by its value which value `key` has."""
    return any(_decides(each, key, results) for each in deciding)


def _decides(decider: str, key: str, results: Sequence[Result]) -> bool:
    seen: dict[str, str] = {}
    for each in results:
        value = comparable(value_of(each, key))
        if seen.setdefault(comparable(value_of(each, decider)), value) != value:
            return False
    return True


def _ends(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[start:]) for start in reversed(range(len(parts)))]


def _is_only(end: str, key: str, keys: Sequence[str]) -> bool:
    return end == key or not any(other == end or other.endswith(f".{end}") for other in keys if other != key)
