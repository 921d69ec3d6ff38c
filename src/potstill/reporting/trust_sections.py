"""Where teacher and student err, whether they err alike, and how far their confidence can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from potstill.reporting.line_plots import Frame, Line, Point, line_plot
from potstill.reporting.markup import Axis
from potstill.reporting.reading import Evaluation, drawn_models, groups, shown, tick_text
from potstill.reporting.sections import Chart, Column, Section, Table, interval_text, number

MAX_SHOWN = 12  # confusions; more are folded away
STEADY = 20  # rows in a bin: the share of fewer only jumps about


def errors_section(evaluation: Evaluation) -> Section | None:
    """The 2x2 of teacher and student right and wrong, and how often the student copies an error."""
    model = shown(evaluation)
    against = evaluation["models"][model]["overall"].get("against_teacher")
    if not against or not against.get("errors"):
        return None
    errors, copied = against["errors"], against["copied_errors"]
    total = sum(errors.values())
    wrong = errors["both_wrong_alike"] + errors["both_wrong_apart"]
    columns = [Column(""), *(Column(f"{model} {how}", partial(_of, total), "number") for how in ("right", "wrong"))]
    rows = [
        ["teacher right", errors["both_right"], errors["only_teacher_right"]],
        ["teacher wrong", errors["only_model_right"], wrong],
    ]
    words = [
        f"Of the {wrong:,} rows that both get wrong, the {model} gives the teacher's own wrong answer in "
        f"{errors['both_wrong_alike']:,}."
    ]
    if copied and copied["value"] is not None:
        interval = interval_text("accuracy")(copied["interval"])
        words.append(
            f"Where the teacher is wrong, the {model} copies its answer in {100 * copied['value']:.1f} % of the rows "
            f"(95 % interval {interval}, n = {copied['n']:,})."
        )
    by_slice = list(_copied(evaluation, model))
    tables = [Table("Right and wrong, rows", columns, rows)]
    if by_slice:
        more = [
            Column("slice"),
            number("copied errors", "accuracy"),
            Column("95 % interval", interval_text("accuracy"), "number"),
        ]
        tables.append(
            Table("Copied errors by slice, most first", [*more, number("teacher wrong")], by_slice, is_folded=True)
        )
    return Section("errors", "Whose errors", words, tables)


def calibration_section(evaluation: Evaluation) -> Section | None:
    """Confidence against accuracy, and what is left to answer when the least sure rows are passed on."""
    reports = {name: evaluation["models"][name]["overall"] for name in drawn_models(evaluation)}
    told = {name: each for name, each in reports.items() if each.get("calibration")}
    if not told:
        return None
    share = tick_text("accuracy")
    lines = [
        Line(name, _reliability(each["calibration"]))
        for name, each in told.items()
        if each["calibration"].get("reliability")
    ]
    frame = Frame(Axis(0, 1, share), Axis(0, 1, share), "confidence", "share that is right", has_diagonal=True)
    columns = [Column("model"), number("expected calibration error", "accuracy")]
    columns += [Column("95 % interval", interval_text("accuracy"), "number"), number("mean confidence", "accuracy")]
    rows = [
        [
            name,
            each["calibration"]["ece"],
            each["calibration"].get("ece_interval"),
            each["calibration"]["mean_confidence"],
        ]
        for name, each in told.items()
    ]
    words = [
        "On the dashed line confidence is honest: of the answers given with 80 %, 80 % are right. "
        "Below it a model is too sure, above it too modest."
    ]
    plots = [line_plot(lines, frame, "Reliability of " + ", ".join(line.name for line in lines))] if lines else []
    tables = [Table("Calibration", columns, rows), *_selective(told)]
    return Section(
        "calibration",
        "Calibration",
        words,
        tables,
        plots,
        Chart(frame.x_title, frame.y_title, lines) if lines else None,
    )


def confusion_section(evaluation: Evaluation) -> Section | None:
    """Which labels the student mixes up more, or less, than the teacher."""
    found = evaluation.get("confusions")
    if not found:
        return None
    models = [name for name in drawn_models(evaluation) if name in found[0]]
    pair = models[:2] if {"teacher", "student"} <= set(models) else None
    columns = [Column("gold"), Column("taken for"), *(number(name) for name in models)]
    rows = [[each["gold"], each["predicted"], *(each[name] for name in models)] for each in found]
    if pair:
        columns.append(Column("student - teacher", lambda value: f"{value:+d}", "number"))
        rows = [[*row, each["student"] - each["teacher"]] for row, each in zip(rows, found, strict=True)]
    words = ["How often a gold label was taken for another: the pairs on which the models differ most."]
    tables = [Table("Confusions, items", columns, rows[:MAX_SHOWN])]
    tables += [Table("More confusions, items", columns, rows[MAX_SHOWN:], is_folded=True)] if rows[MAX_SHOWN:] else []
    return Section("confusions", "Confusions that change", words, tables)


def _of(total: int, count: int) -> str:
    return f"{count:,} ({100 * count / total:.1f} %)" if total else f"{count:,}"


def _copied(evaluation: Evaluation, model: str) -> list[list[Any]]:
    rows = [
        [name, copied["value"], copied["interval"], copied["n"]]
        for name, group in groups(evaluation, model).items()
        if (copied := (group.get("against_teacher") or {}).get("copied_errors")) and copied["value"] is not None
    ]
    return sorted(rows, key=lambda row: -row[1])


def _reliability(calibration: dict[str, Any]) -> list[Point]:
    """Bins that hold enough rows; where none does, those that hold any."""
    bins = [each for each in calibration["reliability"] if each["n"]]
    steady = [each for each in bins if each["n"] >= STEADY]
    return [Point(each["confidence"], each["accuracy"]) for each in steady or bins]


def _selective(told: dict[str, dict[str, Any]]) -> Iterator[Table]:
    coverages = next((each["selective"] for each in told.values() if each.get("selective")), None)
    if coverages:
        columns = [
            Column("model"),
            *(number(f"surest {100 * each['coverage']:.0f} %", "accuracy") for each in coverages),
        ]
        rows = [
            [name, *(part["accuracy"] for part in each["selective"])]
            for name, each in told.items()
            if each.get("selective")
        ]
        yield Table("Accuracy on the rows that a model is surest of", columns, rows)
