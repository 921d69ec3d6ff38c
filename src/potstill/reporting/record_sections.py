"""Examples, cost, where everything came from, and how to run it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from potstill.reporting.reading import Evaluation, models_in_order
from potstill.reporting.sections import Column, Section, Table, metric_text, number

KINDS = {
    "only_teacher_right": "The teacher right, the student wrong",
    "both_wrong_alike": "Both wrong, with the same answer: copied errors",
    "both_wrong_apart": "Both wrong, with different answers",
    "only_model_right": "The student right, the teacher wrong",
}
SIZES = {"parameters": "parameters", "model_bytes": "size", "flops": "FLOPs of one example"}
TIMES = {
    "latency_ms_p50": "latency p50, batch 1",
    "latency_ms_p95": "latency p95, batch 1",
    "latency_ms_p99": "latency p99, batch 1",
    "peak_bytes": "memory, at the most",
}
TENSE = {True: "applies", False: "does not apply", None: "not known"}


def example_section(evaluation: Evaluation) -> Section | None:
    found = {kind: rows for kind, rows in (evaluation.get("examples") or {}).items() if rows}
    if not found:
        return None
    columns = [
        Column("text"),
        Column("gold"),
        Column("teacher"),
        Column("student"),
        number("student's confidence", "accuracy"),
    ]
    keys = ("text", "gold", "teacher", "student", "student_confidence")
    tables = [
        Table(
            KINDS[kind] if kind in KINDS else kind.replace("_", " "),
            columns,
            [[row.get(key) for key in keys] for row in rows],
            is_stacked=True,
        )
        for kind, rows in found.items()
    ]
    return Section(
        "examples",
        "Examples",
        ["At most ten of each kind, the student surest of itself first."],
        tables,
        is_private=True,
    )


def cost_section(evaluation: Evaluation) -> Section:
    models, measured = models_in_order(evaluation), evaluation["measured"]
    machine = measured.get("machine") or {}
    on = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items() if value)
    words = [f"Measured on this machine: {on}. Times differ from machine to machine; sizes do not."] if on else []
    table = Table(
        "Size and speed", [Column(""), *(number(name) for name in models)], list(_cost_rows(evaluation, models))
    )
    tables = [table, *_mixes(measured, models), *_break_even(measured), *_rules(measured)]
    return Section("cost", "Cost", words, tables)


def provenance_section(evaluation: Evaluation) -> Section:
    provenance, data = evaluation["provenance"], evaluation["data"]
    openings = evaluation["measured"].get("openings") or {}
    words = ["What this was made from. Fingerprints are hashes of content: equal ones mean equal things."]
    if openings.get("count") is not None:
        words.append(
            f"This test set has been opened {openings['count']:,} times (limit {openings['limit']:,}), "
            f"by the record in {openings['ledger']}."
        )
    facts = [["evaluated with potstill", provenance["potstill"]], ["evaluated at", evaluation["measured"].get("at")]]
    facts += [["data", data["fingerprint"]], ["test manifest", data.get("manifest")]]
    facts += [[f"teacher {path}", print_] for path, print_ in (provenance.get("teacher") or {}).items()]
    columns = [Column("what"), Column("value", kind="code")]
    return Section("provenance", "Provenance", words, [Table("Versions and data", columns, facts), *_runs(provenance)])


def rerun_section(evaluation: Evaluation) -> Section:
    """The commands that make this again."""
    provenance = evaluation["provenance"]
    trained = [
        f"potstill train --from {shlex.quote(run['path'])}" for run in provenance["runs"].values() if run.get("path")
    ]
    words = [
        "The first command evaluates the same run again: the same evaluation.json, but for what was measured. "
        "The others train the runs again, from their own config and seed."
    ]
    return Section("rerun", "How to rerun", words, code=[provenance["rerun"], *trained])


def _cost_rows(evaluation: Evaluation, models: list[str]) -> Iterator[list[Any]]:
    sizes = {name: evaluation["models"][name].get("size") or {} for name in models}
    times = {name: (evaluation["measured"].get("models") or {}).get(name) or {} for name in models}
    for told, labels in ((sizes, SIZES), (times, TIMES)):
        for key, label in labels.items():
            if any(each.get(key) is not None for each in told.values()):
                write = metric_text("model_bytes" if key == "peak_bytes" else key)
                yield [label, *(write(told[name].get(key)) for name in models)]


def _mixes(measured: dict[str, Any], models: list[str]) -> Iterator[Table]:
    keys = ("batch", "concurrency", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99", "examples_per_s")
    rows = [
        [name, *(mix.get(key) for key in keys)]
        for name in models
        for mix in ((measured.get("models") or {}).get(name) or {}).get("mixes") or []
    ]
    if rows:
        columns = [Column("model"), number("batch"), number("at once"), number("p50, ms"), number("p95, ms")]
        columns += [number("p99, ms"), number("examples a second")]
        yield Table("Latency and throughput under load", columns, rows, is_folded=True)


def _break_even(measured: dict[str, Any]) -> Iterator[Table]:
    if even := measured.get("break_even"):
        cost = even.get("cost_per_request") or {}
        rows = [["requests until the student has paid for itself", even["requests"]], ["months", even["months"]]]
        rows += [["requests a month", even["requests_per_month"]], ["cost of building it", even["build_cost"]]]
        rows += [[f"cost of a request, {name}", value] for name, value in cost.items()]
        yield Table("Break-even, by the bar's prices", [Column("what"), number("value")], rows)


def _rules(measured: dict[str, Any]) -> Iterator[Table]:
    if rules := measured.get("when_not_to_distil"):
        columns = [Column("rule"), Column("here", lambda value: TENSE[value]), Column("why")]
        rows = [[each["rule"].replace("_", " "), each["applies"], each["says"]] for each in rules]
        yield Table("When not to distil", columns, rows)


def _runs(provenance: dict[str, Any]) -> Iterator[Table]:
    names = list(provenance["runs"])
    keys = ("path", "experiment", "seed", "status", "started_at")
    rows = [[key.replace("_", " "), *(provenance["runs"][name].get(key) for name in names)] for key in keys]
    commits = [_commit(provenance["runs"][name].get("git") or {}) for name in names]
    licences = [_licences(provenance["runs"][name].get("licences") or {}) for name in names]
    rows += [["commit of potstill", *commits], ["licences", *licences]]
    yield Table("Runs", [Column(""), *(Column(name, kind="code") for name in names)], rows)


def _commit(git: dict[str, Any]) -> str:
    state = git.get("potstill") if "potstill" in git else git
    if not state:
        return "not from a checkout"
    return f"{state['commit'][:12]}{', with changes' if state.get('dirty') else ''}"


def _licences(licences: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {licence}" for name, licence in licences.items() if licence) or "none on record"
