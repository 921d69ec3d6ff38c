"""What the audits of data and teacher found: contamination, coverage, teacher quality, slices nobody declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from potstill.reporting.line_plots import Frame, Line, Point, line_plot
from potstill.reporting.markup import axis_over
from potstill.reporting.reading import FIRST, Evaluation, tick_text
from potstill.reporting.sections import Chart, Column, Section, Table, interval_text, metric_text, number, p_text

MAX_ROWS = 30
DISTANCE = "distance to the nearest training item"
SHARE = "accuracy"  # is written as percents are
RATE = (number("error rate", SHARE), Column("95 % interval", interval_text(SHARE), "number"), number("n"))


def contamination_section(evaluation: Evaluation) -> Section | None:
    """Test items that stand in the training data, and the scores without them."""
    found = evaluation.get("contamination")
    if not found:
        return None
    share = found["num_dirty"] / found["n"] if found["n"] else 0.0
    words = [
        f"{found['num_dirty']:,} of {found['n']:,} test items ({100 * share:.1f} %) stand in other splits as well: "
        f"{found['num_exact']:,} are the same after normalisation, {found['num_near']:,} are near-duplicates, "
        f"{found['num_ngram']:,} share long runs of words. "
        "The repair is to drop them from training, never from the test."
    ]
    return Section(
        "contamination", "Contamination", words, [*_clean_scores(found), *_dirty_items(found)], is_private=True
    )


def coverage_section(evaluation: Evaluation) -> Section | None:
    """What of the evaluation data the transfer set lacks, and whether distance from it shows in errors."""
    found = evaluation.get("coverage")
    if not found:
        return None
    empty, thin = found.get("empty") or [], found.get("thin") or []
    words = [
        f"The transfer set has {found['num_transfer']:,} items, the sample it is held against {found['num_sample']:,}."
    ]
    words.append(
        f"Cells without any transfer item: {', '.join(empty)}." if empty else "No cell is without transfer items."
    )
    words += [f"Thin cells (less than half their share): {', '.join(thin)}."] if thin else []
    columns = [
        Column("cell"),
        Column("status"),
        number("transfer items"),
        number("share", SHARE),
        number("sample items"),
    ]
    columns += [number("share of the sample", SHARE), number("items to fill it")]
    keys = ("cell", "status", "num_transfer", "transfer_share", "num_sample", "sample_share", "rows_to_fill")
    rows = [[cell[key] for key in keys] for cell in found["cells"]]
    cells = Table("Cells, those without data first", columns, rows[:MAX_ROWS], is_folded=not empty)
    distance = found.get("distance") or {}
    words += [_on_distance(distance)] if distance.get("errors") else []
    lines = _distance_lines(distance)
    plots, chart = ([_distance_plot(lines)], Chart(DISTANCE, "error rate", lines)) if lines else ([], None)
    return Section("coverage", "Coverage", words, [cells, *_distance_tables(distance)], plots, chart)


def teacher_section(evaluation: Evaluation) -> Section | None:
    """Where the teacher is wrong on gold, labels that contradict each other, and rows to look at."""
    found = evaluation.get("teacher_quality")
    if not found:
        return None
    named = found.get("named") or []
    words = [
        f"Slices in which the teacher errs more often than chance allows: {', '.join(named)}."
        if named
        else "In no slice does the teacher err more often than chance allows."
    ]
    keys = ("slice", "value", "interval", "n", "p_holm")
    rows = [[each[key] for key in keys] for each in found["slices"][:MAX_ROWS]]
    tables = [
        Table(
            "The teacher's errors on gold, by slice",
            [Column("slice"), *RATE, Column("p, Holm", p_text, "number")],
            rows,
        )
    ]
    return Section("teacher", "Teacher quality", words, [*tables, *_conflicts(found), *_review(found)], is_private=True)


def found_section(evaluation: Evaluation) -> Section | None:
    """Slices that a search found on one half of the test set, as they did on the other."""
    found = evaluation.get("found_slices")
    if not found:
        return None
    words = [
        f"Where '{found['target']}' gathers: searched on {found['n_found_on']:,} items, tested on the other "
        f"{found['n_tested_on']:,}, of which {metric_text(SHARE)(found['error_rate'])} are such."
    ]
    keys = ("name", "error_rate", "interval", "n", "p_holm")
    rows = [[each[key] for key in keys] for each in found["slices"]]
    columns = [Column("slice"), *RATE, Column("p, Holm", p_text, "number")]
    return Section("found", "Found slices", words, [Table("Found slices, clearest first", columns, rows)])


def _clean_scores(found: dict[str, Any]) -> Iterator[Table]:
    if not found.get("models"):
        return
    columns = [
        Column("model"),
        number("clean", SHARE),
        number("n of clean"),
        number("dirty", SHARE),
        number("n of dirty"),
    ]
    rows = [
        [name, *(part for kind in ("clean", "dirty") for part in (each[kind]["value"], each[kind]["n"]))]
        for name, each in found["models"].items()
    ]
    yield Table("Scores with and without what stands in training data", columns, rows)


def _dirty_items(found: dict[str, Any]) -> Iterator[Table]:
    if found.get("items"):
        columns = [Column("test item"), Column("kind"), Column("split"), Column("stands there as"), number("Jaccard")]
        keys = ("text", "kind", "split", "other_text", "jaccard")
        rows = [[each.get(key) for key in keys] for each in found["items"][:MAX_ROWS]]
        count = f"the first {MAX_ROWS} of {len(found['items'])}" if len(found["items"]) > MAX_ROWS else "all of them"
        yield Table(f"Test items found elsewhere: {count}", columns, rows, is_folded=True)


def _in_order(errors: dict[str, Any]) -> list[str]:
    return [*(name for name in FIRST if name in errors), *(name for name in errors if name not in FIRST)]


def _on_distance(distance: dict[str, Any]) -> str:
    told = {name: distance["errors"][name].get("spearman") for name in _in_order(distance["errors"])}
    said = ", ".join(f"{value:+.2f} for the {name}" for name, value in told.items() if value is not None)
    return f"{DISTANCE.capitalize()} by {distance['embedding']}. Correlation with error (Spearman): {said or '-'}."


def _distance_lines(distance: dict[str, Any]) -> list[Line]:
    errors = distance.get("errors") or {}
    told = {name: [each for each in errors[name]["bins"] if each["value"] is not None] for name in _in_order(errors)}
    return [Line(name, [_point(each) for each in bins]) for name, bins in told.items() if bins]


def _distance_plot(lines: list[Line]) -> Any:
    points = [point for line in lines for point in line.points]
    x = axis_over([point.x for point in points], lambda value: f"{value:g}", bounds=(0.0, 2.0))
    heights = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    frame = Frame(x, axis_over(heights, tick_text(SHARE), bounds=(0.0, 1.0)), DISTANCE, "error rate")
    return line_plot(lines, frame, f"Error rate against {DISTANCE}; the numbers are in the table.")


def _point(part: dict[str, Any]) -> Point:
    low, high = part["interval"] or (None, None)
    return Point((part["low"] + part["high"]) / 2, part["value"], low, high)


def _distance_tables(distance: dict[str, Any]) -> Iterator[Table]:
    if errors := distance.get("errors"):
        columns = [Column("model"), number("nearest from"), number("to"), *RATE]
        rows = [
            [name, part["low"], part["high"], part["value"], part["interval"], part["n"]]
            for name in _in_order(errors)
            for part in errors[name]["bins"]
        ]
        yield Table("Error against distance, five bins of equally many items", columns, rows, is_folded=True)


def _conflicts(found: dict[str, Any]) -> Iterator[Table]:
    if conflicts := found.get("conflicts"):
        rows = [
            [each["text"], ", ".join(f"{label} ({count})" for label, count in each["labels"].items())]
            for each in conflicts[:MAX_ROWS]
        ]
        yield Table("The same text under several labels", [Column("text"), Column("labels")], rows, is_folded=True)


def _review(found: dict[str, Any]) -> Iterator[Table]:
    if review := found.get("review"):
        columns = [Column("text"), Column("gold"), Column("teacher"), number("confidence in gold", SHARE)]
        rows = [
            [row.get(key) for key in ("text", "gold", "teacher", "confidence_in_gold")] for row in review[:MAX_ROWS]
        ]
        yield Table(f"Rows to look at, most doubtful first ({found['review_method']})", columns, rows, is_folded=True)
