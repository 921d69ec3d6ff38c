"""What `potstill generate` exported, as training data. Named by `data.source._target_`."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets, load_dataset

from potstill.data.mixing import in_ratio
from potstill.data.quiet import quiet
from potstill.data.sources import files
from potstill.data.text_tasks import GOLD, TEACHER, Lesson, lesson
from potstill.data.tokenizers import cache_directory
from potstill.data.traces import Ends, Trace, fit, shortest
from potstill.errors import UserError, nearest_hint
from potstill.generation.export import MANIFEST, damage
from potstill.generation.templates import RowTemplate
from potstill.generation.terms import licence_record
from potstill.models.tokenizers import load_tokenizer

log = logging.getLogger(__name__)

SAMPLES = ("all", "shortest")


class GeneratedText(DatasetDict):
    """Splits that teachers wrote, or a part of them.

    licence_records: their terms, for the papers of whatever is trained on them. left_out: what of the exports is not
    learnt, or not in full, and why.
    """

    def __init__(
        self,
        splits: Mapping[Any, Dataset],
        licence_records: Sequence[dict[str, Any]] = (),
        left_out: Sequence[dict[str, Any]] = (),
    ) -> None:
        super().__init__(splits)
        self.licence_records, self.left_out = list(licence_records), list(left_out)


def generated(
    path: str,
    validation: str | None = None,
    test: str | None = None,
    root: str = ".",
    gold: str | None = None,
    gold_share: float = 0.5,
    fields: Mapping[str, str] | None = None,
    tasks: Mapping[str, Any] | None = None,
    weight: str | None = None,
    samples: str = "all",
    trace: Trace | None = None,
    tokenizer: str | None = None,
    seed: int = 0,
) -> GeneratedText:
    """An export's rows as the train split, gold ones mixed in; validation and test from files of their own, if given.

    path: the directory of a generation's run, or its `export`. fields: templates that give the rows of gold, validation
    and test the names that an export has. tasks, weight: see `text_tasks`; of validation and test the first task alone;
    without tasks, rows are as they are. samples: `shortest` keeps one of each row's. tokenizer: what counts lengths.
    seed: of the choice of gold.
    Raises UserError where there is no export, a file of it is not as it was written, its terms do not allow the
    training, or an option has nothing to work on.
    """
    folder, manifest = _sealed(path, root)
    trace, left_out = trace or Trace(), []
    with quiet():
        table = _read(folder, manifest)
        ends = _ends(tokenizer) if samples == "shortest" or trace.max_tokens else None
        chosen = _chosen(table, samples, trace, ends, left_out)
        teaching = lesson(tasks, weight, table.column_names)
        _check_use(trace, teaching)
        own = _own_files(root, fields or {}, gold=gold, validation=validation, test=test)
        if gold:
            chosen, own[GOLD] = in_ratio(chosen, own[GOLD], gold_share, seed)
        train = teaching.examples(chosen, TEACHER, left_out)
        if gold:
            more = teaching.examples(own.pop(GOLD), GOLD, left_out)
            train = concatenate_datasets([train, more.select_columns(_shared(train, more))])
        first = Lesson(teaching.tasks[:1], None)
        others = {split: first.examples(rows, GOLD, left_out) for split, rows in own.items()}
    _tell(train, left_out)
    return GeneratedText({"train": train, **others}, [licence_record(manifest)], left_out)


def _sealed(path: str, root: str) -> tuple[Path, dict[str, Any]]:
    folder = Path(root, path).expanduser()
    folder = folder if (folder / MANIFEST).is_file() else folder / "export"
    if not (folder / MANIFEST).is_file():
        fix = "Give the directory of a run of potstill generate."
        raise UserError("data.source.path", path, f"holds no export ({folder / MANIFEST}).", fix)
    if problem := damage(folder):
        fix = "Run the generation again with the same run.dir: the export is made anew from the ledger, for free."
        raise UserError("data.source.path", path, f"is damaged: {problem}.", fix)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not manifest["rows"]:
        problem = "has no rows: everything was dropped."
        raise UserError("data.source.path", path, problem, f"See why: {folder / manifest['dropped']['file']}")
    return folder, manifest


def _read(folder: Path, manifest: Mapping[str, Any]) -> Dataset:
    shards = [str(folder / shard["file"]) for shard in manifest["shards"]]
    return load_dataset("parquet", data_files=shards, split="train", cache_dir=str(cache_directory() / "datasets"))  # type: ignore[return-value]


def _ends(tokenizer: str | None) -> Ends:
    """Where the tokens of a text end."""
    if tokenizer is None:
        problem = "is needed to count the tokens of data.source.samples=shortest and data.source.trace."
        raise UserError("data.source.tokenizer", None, problem, "Name the student's: data.source.tokenizer=DIRECTORY")
    loaded: Any = load_tokenizer(tokenizer, key="data.source.tokenizer")
    return lambda text: [
        end for _, end in loaded(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ]


def _chosen(table: Dataset, samples: str, trace: Trace, ends: Ends | None, left_out: list[dict[str, Any]]) -> Dataset:
    if samples not in SAMPLES:
        raise UserError("data.source.samples", samples, "is not one of the choices.", nearest_hint(samples, SAMPLES))
    if trace.column not in table.column_names:
        hint = nearest_hint(trace.column, table.column_names)
        raise UserError("data.source.trace.column", trace.column, "is no column of the export.", hint)
    if trace.max_tokens and ends:
        table = fit(table, trace, ends, left_out)
    return shortest(table, ends, left_out) if samples == "shortest" and ends else table


def _check_use(trace: Trace, teaching: Lesson) -> None:
    if trace.max_tokens and not any(trace.column in task.completion.names for task in teaching.tasks):
        problem = f"has no effect: no completion of data.source.tasks reads '{trace.column}'."
        fix = "Write one that does, or choose data.source.trace.column; data=generated_reasoning has both."
        raise UserError("data.source.trace.max_tokens", trace.max_tokens, problem, fix)


def _own_files(root: str, fields: Mapping[str, str], **paths: str | None) -> dict[str, Dataset]:
    """By split, with the columns that `fields` adds."""
    given = {split: path for split, path in paths.items() if path}
    return {split: _named(files(train=path, root=root)["train"], fields) for split, path in given.items()}


def _named(table: Dataset, fields: Mapping[str, str]) -> Dataset:
    templates = {
        name: RowTemplate(f"data.source.fields.{name}", text, table.column_names) for name, text in fields.items()
    }
    columns = {name: [each.render(row, n) for n, row in enumerate(table)] for name, each in templates.items()}  # type: ignore[arg-type]
    for name, values in columns.items():
        table = table.remove_columns(name) if name in table.column_names else table
        table = table.add_column(name, values)  # type: ignore[call-arg]
    return table


def _shared(train: Dataset, more: Dataset) -> list[str]:
    """Columns that mean the same in both; the others are empty where an example has none."""
    return [name for name, feature in more.features.items() if train.features.get(name) == feature]


def _tell(train: Dataset, left_out: list[dict[str, Any]]) -> None:
    counts = Counter(zip(train["origin"][:], train["task"][:], strict=True))
    told = ", ".join(f"{count:,} {task or 'rows'} by {origin}" for (origin, task), count in counts.items())
    log.info("Text to learn from: %s.", told)
    if left_out:
        log.warning("%d rows of text are not learnt, or not in full: left_out.jsonl says why.", len(left_out))
