"""potstill inspect: what a config builds, without training it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import PreTrainedModel

from potstill.commands.assemble import assemble_source
from potstill.config.compose import composed, typed
from potstill.config.paths import groups
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate
from potstill.models.load import load_student, load_teacher
from potstill.models.taps import module_table


def inspect(overrides: Sequence[str], console: Console | None = None) -> None:
    """Print groups and options, then the modules of the student and, where there is one, the teacher."""
    console = console or Console()
    config = typed(composed("train", overrides), TrainConfig)
    validate(config)
    console.print(_groups())
    source = assemble_source(config)
    labels = {"label_names": source.label_names, "tokenizer": source.tokenizer}
    teachers = {key: load_teacher(each, source.task, **labels, who=key) for key, each in config.teacher.models.items()}
    student = load_student(config.student, source.task, **labels, teacher=teachers.get("teacher"))
    for who, model in {**teachers, "student": student}.items():
        console.print(_modules(who, model), crop=False)
    console.print("The whole config: potstill inspect --cfg", highlight=False)


def _groups() -> Table:
    table = Table("group", "options", title="Config groups", title_justify="left", box=None)
    for group, options in groups().items():
        table.add_row(group, ", ".join(options))
    return table


def _modules(who: str, model: PreTrainedModel) -> Table:
    title = f"{who}: {type(model).__name__}, {model.num_parameters():,} parameters"
    table = Table("parameters", "class", "module path (for taps)", title=title, title_justify="left", box=None)
    table.columns[0].justify = "right"
    table.columns[1].min_width = max(len(kind) for _, kind, _ in module_table(model))
    table.columns[2].no_wrap, table.columns[2].overflow = True, "ignore"  # a path cut short is no path
    for path, kind, num_parameters in module_table(model):
        table.add_row(f"{num_parameters:,}", kind, escape(path))
    return table
