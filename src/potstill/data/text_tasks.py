"""What a student is taught with each row of text: one example, or one for each of several tasks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from potstill.data.content import content_hash
from potstill.errors import UserError, nearest_hint
from potstill.generation.templates import RowTemplate

KEY = "data.source.tasks"
OPTIONS = ("prompt", "completion", "weight")
OURS_ALWAYS = ("weight", "asked", "task", "origin")  # columns of every example
OURS = ("prompt", "completion", *OURS_ALWAYS)
TEACHER, GOLD = "teacher", "gold"  # who wrote it


@dataclass(frozen=True)
class TextTask:
    """weight: of its loss beside the other tasks'."""

    name: str
    prompt: RowTemplate
    completion: RowTemplate
    weight: float = 1.0

    def missing(self, row: Mapping[str, Any]) -> str | None:
        """The column it reads that is empty in this row, if one is."""
        names = sorted(self.prompt.names | self.completion.names)
        return next((name for name in names if name in row and row[name] in (None, "")), None)


@dataclass(frozen=True)
class Lesson:
    """tasks: none: a row is an example as it is. weight: how much a row counts, a template of a number; None: 1."""

    tasks: Sequence[TextTask]
    weight: RowTemplate | None

    def examples(self, table: Dataset, origin: str, left_out: list[dict[str, Any]]) -> Dataset:
        """The examples of all rows, each with the columns of its row. left_out: gains those that there cannot be."""

        def expand(rows: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
            singles = [dict(zip(rows, values, strict=True)) for values in zip(*rows.values(), strict=True)]
            made = [
                each for row, n in zip(singles, indices, strict=True) for each in self._of(row, n, origin, left_out)
            ]
            ours = OURS if self.tasks else OURS_ALWAYS
            return {name: [each[name] for each in made] for name in dict.fromkeys([*rows, *ours])}

        name = content_hash(table._fingerprint, origin, [self._texts(task) for task in self.tasks], self._weighed())
        options: Any = {"new_fingerprint": name, "load_from_cache_file": False}
        return table.map(expand, batched=True, with_indices=True, remove_columns=table.column_names, **options)

    def _of(
        self, row: dict[str, Any], index: int, origin: str, left_out: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        row_weight = self._row_weight(row, index)
        asked = row.get("prompt") or (self.tasks[0].prompt.render(row, index) if self.tasks else None)
        if not self.tasks:
            yield {**row, "asked": asked, "task": None, "origin": origin, "weight": row_weight}
        for task in self.tasks:
            if missing := task.missing(row):
                left_out.append({"reason": f"no {missing}", "task": task.name, "origin": origin, "asked": asked})
                continue
            said = {"prompt": task.prompt.render(row, index), "completion": task.completion.render(row, index)}
            facts = {"asked": asked, "task": task.name, "origin": origin, "weight": row_weight * task.weight}
            yield {**row, **said, **facts}

    def _row_weight(self, row: Mapping[str, Any], index: int) -> float:
        if self.weight is None:
            return 1.0
        text = self.weight.render(row, index).strip()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            problem = f"gives {text!r} for row {index}, no finite number >= 0."
            raise UserError(self.weight.key, self.weight.text, problem, "For example: '{{ agreement or 0.0 }}'")
        return value

    def _weighed(self) -> str | None:
        return self.weight and self.weight.text

    @staticmethod
    def _texts(task: TextTask) -> list[Any]:
        return [task.name, task.prompt.text, task.completion.text, task.weight]


def lesson(nodes: Mapping[str, Any] | None, weight: str | None, columns: Sequence[str]) -> Lesson:
    """From the config. Raises UserError where there is no task among `nodes`, or one that lacks something."""
    tasks = [_task(name, node, columns) for name, node in (nodes or {}).items() if node]
    if nodes is not None and not tasks:
        fix = "For example: data=generated, whose task is what was said."
        raise UserError(KEY, dict(nodes), "leaves nothing to learn.", fix)
    return Lesson(tasks, RowTemplate("data.source.weight", weight, columns) if weight else None)


def _task(name: str, node: Any, columns: Sequence[str]) -> TextTask:
    key = f"{KEY}.{name}"
    given = dict(node) if isinstance(node, Mapping) else {}
    for option in given:
        if option not in OPTIONS:
            raise UserError(f"{key}.{option}", given[option], "is no option of a task.", nearest_hint(option, OPTIONS))
    for option in OPTIONS[:2]:
        if not isinstance(given.get(option), str):
            problem = "is missing; every task has one."
            raise UserError(
                f"{key}.{option}", given.get(option), problem, f"For example: {key}.{option}='{{{{ raw }}}}'"
            )
    weight = given.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise UserError(f"{key}.weight", weight, "must be a finite number >= 0.", f"For example: {key}.weight=0.5")
    prompt, completion = (RowTemplate(f"{key}.{option}", given[option], columns) for option in OPTIONS[:2])
    return TextTask(name, prompt, completion, float(weight))
