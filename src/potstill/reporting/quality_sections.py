"""How good the models are: overall, by slice, against the teacher and over seeds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from potstill.reporting.format import MISSING, difference_unit, format_difference
from potstill.reporting.markup import Axis, axis_over
from potstill.reporting.reading import (
    METRIC_NAMES,
    Evaluation,
    bounds,
    count,
    drawn_models,
    groups,
    is_share,
    metric_name,
    models_in_order,
    shown,
    slice_heading,
    slice_labels,
    tick_text,
    value_text,
)
from potstill.reporting.row_plots import Mark, Row, bar_plot, dot_plot
from potstill.reporting.sections import Chart, Column, Section, Table, interval_text, metric_text, number, p_text

MAX_PLOTTED = 40  # slices; the table has all
AGAINST = {
    "answer_agreement": "the teacher's own answers",
    "agreement": "agreement with the teacher",
    "top5_overlap": "overlap of the five first classes",
    "kl": "KL(teacher || model), nats a row",
    "entropy_gap": "entropy above the teacher's, nats",
    "retention": "retention",
}
SHARED = frozenset({"answer_agreement", "agreement", "top5_overlap", "retention"})
GENERATED = {
    "exact_match": "exact match",
    "numeric_match": "final number right",
    "rouge_l": "ROUGE-L",
    "length_ratio": "length, over that of the references",
    "truncated": "cut off",
    "repetitive": "going in circles",
    "empty": "empty",
    "format_valid": "well-formed",
}


def overall_section(evaluation: Evaluation) -> Section:
    models = models_in_order(evaluation)
    rows = [*_gold_rows(evaluation, models), *_teacher_rows(evaluation, models), *_generation_rows(evaluation, models)]
    table = Table("All models on the same items", [Column(""), *(number(name) for name in models)], rows)
    words = [_smallest(evaluation), *_answered(evaluation)]
    return Section("overall", "Overall", words, [table, *_differences(evaluation)])


def slice_section(evaluation: Evaluation) -> Section | None:
    """The main metric on every slice: a lane a model."""
    models, metric, name = models_in_order(evaluation), evaluation["metric"], metric_name(evaluation["metric"])
    by_model = {model: groups(evaluation, model) for model in models}
    worst_first = by_model[shown(evaluation)]
    if not worst_first:
        return None
    columns = [Column("slice"), number("n")]
    for model in models:
        columns += [number(model, metric), Column(f"{model}, 95 % interval", interval_text(metric), "number")]
    columns.append(Column("too small"))
    rows = [
        [
            each,
            count(evaluation, group),
            *(part for model in models for part in _cells(by_model[model][each], metric)),
            _small(group),
        ]
        for each, group in worst_first.items()
    ]
    column = slice_heading(list(worst_first))
    words = [f"{name.capitalize()} by {column} with its 95 % interval, the worst of the {shown(evaluation)} first."]
    words += [f"The {MAX_PLOTTED} worst of {len(rows)} are drawn."] if len(rows) > MAX_PLOTTED else []
    if any(map(_small, worst_first.values())):
        words.append("A slice that is too small is never green: its interval says little.")
    drawn = {model: by_model[model] for model in drawn_models(evaluation)}
    plot = _slice_plot(evaluation, drawn, list(worst_first)[:MAX_PLOTTED])
    table = Table(f"{name.capitalize()} by slice", columns, rows, is_folded=True)
    return Section("slices", "Slices", words, [table], [plot], Chart("slice", shown(evaluation)))


def retention_section(evaluation: Evaluation) -> Section | None:
    """What share of the teacher's quality the student keeps, slice by slice."""
    model = shown(evaluation)
    kept = {
        name: (group, group["against_teacher"])
        for name, group in groups(evaluation, model).items()
        if group.get("against_teacher") and group["against_teacher"]["retention"] is not None
    }
    if not kept:
        return None
    kept = dict(sorted(kept.items(), key=lambda item: item[1][1]["retention"]))
    rows = [
        [name, count(evaluation, group), against["retention"], against["retention_interval"]]
        for name, (group, against) in kept.items()
    ]
    columns = [Column("slice"), number("n"), number("retention", "retention")]
    columns.append(Column("95 % interval", interval_text("retention"), "number"))
    values = [against["retention"] for _, against in kept.values()]
    axis = Axis(0.0, max(1.0, min(1.5, max(values))), lambda value: f"{100 * value:g} %")
    labels = slice_labels(list(kept))
    bars = [
        Row(
            labels[name],
            metric_text("retention")(against["retention"]),
            [Mark(0, against["retention"])],
            _note(evaluation, group),
        )
        for name, (group, against) in list(kept.items())[:MAX_PLOTTED]
    ]
    plot = bar_plot(bars, axis, f"Retention on {len(bars)} slices, the numbers are in the table below.", reference=1.0)
    words = [
        f"The {model}'s {metric_name(evaluation['metric'])} over the teacher's, worst first. The line is the teacher."
    ]
    table = Table("Retention by slice", columns, rows, is_folded=True)
    return Section("retention", "Retention", words, [table], [plot], Chart("slice", "retention"))


def seed_section(evaluation: Evaluation) -> Section | None:
    seeds, metric = evaluation.get("seeds"), evaluation["metric"]
    if not seeds:
        return None
    columns = [Column("run", kind="code"), number("seed"), number("student", metric), number("baseline", metric)]
    rows = [[run["path"], run["seed"], run["student"], run["baseline"]] for run in seeds["runs"]]
    write = metric_text(metric)
    spread = [
        [name, f"{write(each['mean'])} +- {write(each['standard_deviation'])}", each["n"]]
        for name in ("student", "baseline")
        if (each := seeds.get(name))
    ]
    known = {"over seeds": seeds.get("difference"), "within this run's test": seeds.get("within_test")}
    differences = [[name, each["value"], each["interval"], each["n"]] for name, each in known.items() if each]
    tables = [
        Table("Spread", [Column("model"), Column("mean +- deviation", kind="number"), number("n")], spread),
        Table("Student - baseline", [Column(""), *_signed(metric), number("n")], differences),
        Table("Runs", columns, rows),
    ]
    words = ["Another seed is another student. An interval within one test knows nothing of that; the spread does."]
    return Section("seeds", "Seeds", words, [table for table in tables if table.rows])


def _smallest(evaluation: Evaluation) -> str:
    """What this test set can tell apart at all."""
    said = [each for each in evaluation["differences"].values() if each.get("smallest")]
    if not said:
        return f"{evaluation['data']['n']:,} test items."
    smallest = min(each["smallest"] for each in said)
    points = f"{100 * smallest:.1f} points" if is_share(evaluation["metric"]) else f"{smallest:.3g}"
    return f"{evaluation['data']['n']:,} test items: differences below {points} would go unseen (80 % power)."


def _answered(evaluation: Evaluation) -> Iterator[str]:
    """To what answers were written, and who wrote none."""
    block = evaluation.get("generation")
    if not block:
        return
    yield (
        f"Answers to {block['n']:,} of {block['num_prompts']:,} prompts, each model's most probable tokens, at most "
        f"{block['max_new_tokens']:,} of them; the same prompts and the same reading for all models."
    )
    for name, reason in block["without"].items():
        yield f"No answers of {name}: {reason}."


def _gold_rows(evaluation: Evaluation, models: list[str]) -> Iterator[list[Any]]:
    overall = {name: evaluation["models"][name]["overall"] for name in models}
    for metric, label in METRIC_NAMES.items():
        if any(metric in each for each in overall.values()):
            yield [label, *(metric_text(metric)(overall[name].get(metric)) for name in models)]
            if metric == evaluation["metric"]:
                text = interval_text(metric)
                yield ["95 % interval", *(text(overall[name].get("interval")) for name in models)]
    if any(each.get("num_nonfinite") for each in overall.values()):
        yield ["rows whose logits are not finite", *(overall[name].get("num_nonfinite") for name in models)]


def _teacher_rows(evaluation: Evaluation, models: list[str]) -> Iterator[list[Any]]:
    against = {name: evaluation["models"][name]["overall"].get("against_teacher") or {} for name in models}
    for key, label in AGAINST.items():
        if any(each.get(key) is not None for each in against.values()):
            write = metric_text("retention" if key in SHARED else key)
            yield [label, *(write(against[name].get(key)) for name in models)]


def _generation_rows(evaluation: Evaluation, models: list[str]) -> Iterator[list[Any]]:
    told = {name: evaluation["models"][name]["overall"].get("generation") or {} for name in models}
    for key, label in GENERATED.items():
        if key != evaluation["metric"] and any(each.get(key) is not None for each in told.values()):
            yield [f"answers: {label}", *(metric_text(key)(told[name].get(key)) for name in models)]
            text = interval_text(key)
            bounds = {name: (each.get("intervals") or {}).get(key) for name, each in told.items()}
            if any(bounds.values()):
                yield ["95 % interval", *(text(bounds[name]) for name in models)]


def _differences(evaluation: Evaluation) -> Iterator[Table]:
    if not evaluation["differences"]:
        return
    metric = evaluation["metric"]
    columns = [Column("difference"), *_signed(metric), Column("McNemar's p", p_text, "number"), number("n")]
    rows = [
        [name.replace("-", " - "), each["value"], each["interval"], each.get("p_value"), each["n"]]
        for name, each in evaluation["differences"].items()
    ]
    yield Table("Differences, paired by item", columns, rows)


def _signed(metric: str) -> list[Column]:
    """Of a difference in the metric, and of its interval."""
    signed, unit = partial(format_difference, metric), difference_unit(metric)
    return [
        Column(f"in {metric_name(metric)}{unit and f',{unit}'}", signed, "number"),
        Column("95 % interval", lambda pair: " to ".join(map(signed, pair)) if pair else MISSING, "number"),
    ]


def _cells(group: dict[str, Any], metric: str) -> list[Any]:
    return [group.get(metric), group.get("interval")]


def _small(group: dict[str, Any]) -> bool:
    return bool(group.get("is_too_small"))


def _slice_plot(evaluation: Evaluation, by_model: dict[str, dict[str, Any]], names: list[str]) -> Any:
    metric = evaluation["metric"]
    marks = {
        name: [
            Mark(lane, by_model[model][name].get(metric), *bounds(by_model[model][name]))
            for lane, model in enumerate(by_model)
        ]
        for name in names
    }
    values = [
        value
        for each in marks.values()
        for mark in each
        for value in (mark.value, mark.low, mark.high)
        if value is not None
    ]
    axis = axis_over(values, tick_text(metric), bounds=(0.0, 1.0) if is_share(metric) else None)
    labels = slice_labels(names)
    shown_groups = by_model[shown(evaluation)]
    rows = [
        Row(
            labels[name], value_text(evaluation, shown_groups[name]), marks[name], _note(evaluation, shown_groups[name])
        )
        for name in names
    ]
    description = (
        f"{metric_name(metric)} of {', '.join(by_model)} on {len(rows)} slices; the numbers are in the table below."
    )
    return dot_plot(rows, axis, description, list(by_model))


def _note(evaluation: Evaluation, group: dict[str, Any]) -> str:
    counted = f"n {count(evaluation, group):,}"
    return f"{counted}, too small" if _small(group) else counted
