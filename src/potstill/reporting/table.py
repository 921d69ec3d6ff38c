"""`evaluation.json` on the terminal: the verdict and its gates, then models side by side, then the worst slices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from potstill.evaluation.ranking import costs, counted, main_model, numbers, slices_worst_first
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
    "exact_match": "exact match",
    "numeric_match": "final number right",
    "rouge_l": "ROUGE-L",
    "length_ratio": "length of answers",
    "truncated": "answers cut off",
    "repetitive": "answers in circles",
    "empty": "empty answers",
    "format_valid": "well-formed answers",
    "answer_agreement": "answers as teacher's",
    "agreement": "agreement with teacher",
    "retention": "retention",
    "kl": "KL to teacher, nats",
    "copied_errors": "copied errors",
    "ece": "calibration error",
}
_COST = {
    "parameters": "parameters",
    "model_bytes": "size",
    "latency_ms_p50": "latency p50, batch 1",
    "latency_ms_p95": "latency p95, batch 1",
    "flops": "FLOPs an example",
}


def print_evaluation(evaluation: dict[str, Any], console: Console | None = None) -> None:
    """Print what `potstill.evaluation.evaluate.evaluate` returned.

    Made to be read at 80 columns, without colour and in ASCII: rich falls back to what the terminal can show.
    """
    console = console or Console()
    for line in verdict_lines(evaluation):
        console.print(Text(line))
    console.print(overall_table(evaluation))
    for name, difference in evaluation["differences"].items():
        console.print(Text(difference_line(name, difference)))
    slices = slices_worst_first(evaluation, main_model(evaluation))
    if slices:
        console.print()
        console.print(slice_table(evaluation, slices[:MAX_SLICES]))
    if len(slices) > MAX_SLICES:
        console.print(Text(f"... and {len(slices) - MAX_SLICES} more in evaluation.json"))


def verdict_lines(evaluation: dict[str, Any]) -> Iterator[str]:
    """The verdict, then its gates, those that failed first."""
    verdict, bar = evaluation["verdict"], evaluation["bar"]["name"]
    against = f"  (student against baseline: {verdict['against_baseline']})" if verdict["against_baseline"] else ""
    if verdict["outcome"] is None:
        yield f"No verdict: bar={bar or 'none'} asks for nothing.{against}"
    else:
        yield f"Verdict: {verdict['outcome']}  (bar {bar}){against}"
    marks = {"pass": "pass", "fail": "FAIL", "not_enough_evidence": "open"}
    for gate in evaluation["gates"]:
        yield f"  {marks[gate['outcome']]}  {gate['name']:<14}{gate['says']}"
    yield ""


def overall_table(evaluation: dict[str, Any]) -> Table:
    """Models as columns, quality and cost as rows."""
    models = evaluation["models"]
    data = evaluation["data"]
    table = _table(f"{evaluation['task']}, {data['split']}: {format_value('n', data['n'])} examples")
    table.add_column()
    for name in models:
        table.add_column(name, justify="right", no_wrap=True)
    quality = {name: numbers(model["overall"]) for name, model in models.items()}
    for values, labels in ((quality, _QUALITY), ({name: costs(evaluation, name) for name in models}, _COST)):
        for key, label in labels.items():
            if any(each.get(key) is not None for each in values.values()):
                table.add_row(label, *(format_value(key, each.get(key)) for each in values.values()))
    return table


def slice_table(evaluation: dict[str, Any], names: list[str]) -> Table:
    """The main metric of every model on the named slices, then agreement and retention of the main model."""
    models, metric, shown = evaluation["models"], evaluation["metric"], main_model(evaluation)
    details = [key for key in ("agreement", "retention") if key in numbers(models[shown]["overall"])]
    heading, labels = _labels(names)
    table = _table(f"{metric} by slice, worst of the {shown} first")
    table.add_column(Text(heading), overflow="fold")
    for name in ("n", *models, *details):
        table.add_column(name, justify="right", no_wrap=True)
    for name, label in zip(names, labels, strict=True):
        group = models[shown]["slices"][name]
        values = numbers(group)
        table.add_row(
            Text(f"{label} (too small)" if group.get("is_too_small") else label),  # a str's "[bold]" would be markup
            format_value("n", counted(evaluation, group)),
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
