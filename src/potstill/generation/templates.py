"""Prompts from rows, by Jinja templates that see the row's columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, meta
from jinja2.sandbox import SandboxedEnvironment

from potstill.errors import UserError, nearest_hint

# A template is data from a config: it cannot reach the program.
_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=False, autoescape=False)


class RowTemplate:
    """key: where it stands in the config, for errors. given: what it sees besides the columns, which hide it.
    names: of what it reads.

    Raises UserError for what is no template, and for a name that is no column.
    """

    def __init__(self, key: str, text: str, columns: Sequence[str], given: Mapping[str, Any] | None = None) -> None:
        self.key, self.text, self.columns = key, text, [*columns, *(given or {})]
        try:
            self._template: Template = _ENVIRONMENT.from_string(text, globals=dict(given or {}))
            self.names = frozenset(meta.find_undeclared_variables(_ENVIRONMENT.parse(text)))
        except TemplateError as error:
            raise UserError(key, text, f"is no template: {error}", "For example: '{{ text }}'") from error
        for name in sorted(self.names - {*self.columns, *_ENVIRONMENT.globals}):
            problem = f"names '{name}', which is no column of the data."
            raise UserError(key, text, problem, nearest_hint(name, self.columns))

    def render(self, row: Mapping[str, Any], index: int) -> str:
        """Raises UserError where the template fails on this row."""
        try:
            return self._template.render(row)
        except UndefinedError as error:
            name = str(error.message).split("'")[1::2]
            hint = nearest_hint(name[-1] if name else "", self.columns)
            raise UserError(self.key, self.text, f"names what row {index} has not: {error.message}.", hint) from error
        except (TemplateError, TypeError, ValueError, AttributeError) as error:
            problem = f"fails on row {index}: {error}"
            raise UserError(self.key, self.text, problem, "Mend the template, or the row.") from error
