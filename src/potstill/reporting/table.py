"""`evaluation.json` on the terminal: models side by side, overall and per slice, worst slice first."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from potstill.evaluation.ranking import main_model, slices_worst_first
from potstill.reporting.format import MISSING, difference_unit, format_difference, format_value

MAX_SLICES = 15

# labels of the rows, in their order; what a task does not measure is left out
_QUALITY = {
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "ndcg_at_10": "nDCG@10",
    "recall_at_10": "recall@10",
    "accuracy_at_1": "accuracy@1",
    "spearman": "Spearman",
    "agreement": "agreement with teacher",
    "retention": "retention",
}
_COST = {
    "parameters": "parameters",
    "model_bytes": "size",
    "latency_ms_p50": "latency p50, batch 1",
    "latency_ms_p95": "latency p95, batch 1",
}


def print_evaluation(evaluation: dict[str, Any], console: Console | None = None) -> None:
    """Print what `potstill.evaluation.evaluate.evaluate` returned.

    Made to be read at 80 columns, without colour and in ASCII: rich falls back to what the terminal can show.
    """
    console = console or Console()
    console.print(overall_table(evaluation))
    for name, difference in evaluation["differences"].items():
        console.print(Text(difference_line(name, difference)))
    slices = slices_worst_first(evaluation, main_model(evaluation))
    if slices:
        console.print()
        console.print(slice_table(evaluation, slices[:MAX_SLICES]))
    if len(slices) > MAX_SLICES:
        console.print(Text(f"... and {len(slices) - MAX_SLICES} more in evaluation.json"))


def overall_table(evaluation: dict[str, Any]) -> Table:
    """Models as columns, quality and cost as rows."""
    models = evaluation["models"]
    data = evaluation["data"]
    table = _table(f"{evaluation['task']}, {data['split']}: {format_value('n', data['n'])} examples")
    table.add_column()
    for name in models:
        table.add_column(name, justify="right", no_wrap=True)
    for part, labels in (("overall", _QUALITY), ("cost", _COST)):
        for key, label in labels.items():
            if any(key in model[part] for model in models.values()):
                table.add_row(label, *(format_value(key, model[part].get(key)) for model in models.values()))
    return table


def slice_table(evaluation: dict[str, Any], names: list[str]) -> Table:
    """The main metric of every model on the named slices, then agreement and retention of the main model."""
    models, metric, shown = evaluation["models"], evaluation["metric"], main_model(evaluation)
    details = [key for key in ("agreement", "retention") if key in models[shown]["overall"]]
    heading, labels = _labels(names)
    table = _table(f"{metric} by slice, worst of the {shown} first")
    table.add_column(Text(heading), overflow="fold")
    for name in ("n", *models, *details):
        table.add_column(name, justify="right", no_wrap=True)
    for name, label in zip(names, labels, strict=True):
        values = models[shown]["slices"][name]
        table.add_row(
            Text(label),  # not a str, in which "[bold]" would be markup
            format_value("n", values["n"]),
            *(format_value(metric, model["slices"][name][metric]) for model in models.values()),
            *(format_value(key, values[key]) for key in details),
        )
    return table


def _labels(names: list[str]) -> tuple[str, list[str]]:
    """Heading and labels of the slices; where all are of one column its name moves into the heading."""
    columns = {name.partition("=")[0] for name in names}
    return (columns.pop(), [name.partition("=")[2] for name in names]) if len(columns) == 1 else ("slice", names)


def difference_line(name: str, difference: dict[str, Any]) -> str:
    """`student - baseline in accuracy: +3.2 points, 95 % interval [+1.1, +5.3], paired over 360 examples`."""
    metric, (low, high) = difference["metric"], difference["interval"]
    value, low, high = (format_difference(metric, number) for number in (difference["value"], low, high))
    interval = MISSING if MISSING in (low, high) else f"[{low}, {high}]"
    return (
        f"{name.replace('-', ' - ')} in {metric}: {value}{difference_unit(metric)}, "
        f"95 % interval {interval}, paired over {difference['n']:,} examples"
    )


def _table(title: str) -> Table:
    style = {"title_justify": "left", "title_style": "bold", "box": SIMPLE_HEAD}
    return Table(title=title, show_edge=False, padding=(0, 1, 0, 0), **style)
