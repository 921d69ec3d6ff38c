"""What `potstill generate` exported, as training data. Named by `data.source._target_`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset

from potstill.data.quiet import quiet
from potstill.data.sources import files
from potstill.data.tokenizers import cache_directory
from potstill.errors import UserError, nearest_hint
from potstill.generation.export import MANIFEST, damage
from potstill.generation.terms import licence_record


class GeneratedText(DatasetDict):
    """Splits that a teacher wrote. licence: its terms, for the papers of whatever is trained on them."""

    licence: dict[str, Any]


def generated(
    path: str,
    validation: str | None = None,
    test: str | None = None,
    root: str = ".",
    renamed: dict[str, str] | None = None,
) -> GeneratedText:
    """An export's shards as the train split; validation and test from files of their own, if given.

    path: the directory of a generation's run, or its `export`. renamed: columns of those files that the export has
    under another name, `{theirs: the export's}`. Raises UserError where there is no export, or a file of it is not as
    it was written, or its terms do not allow the training.
    """
    folder = Path(root, path).expanduser()
    folder = folder if (folder / MANIFEST).is_file() else folder / "export"
    if not (folder / MANIFEST).is_file():
        fix = "Give the directory of a run of potstill generate."
        raise UserError("data.source.path", path, f"holds no export ({folder / MANIFEST}).", fix)
    if problem := damage(folder):
        fix = "Run the generation again with the same run.dir: the export is made anew from the ledger, for free."
        raise UserError("data.source.path", path, f"is damaged: {problem}.", fix)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    shards = [str(folder / shard["file"]) for shard in manifest["shards"]]
    if not manifest["rows"]:
        problem = "has no rows: everything was dropped."
        raise UserError("data.source.path", path, problem, f"See why: {folder / manifest['dropped']['file']}")
    with quiet():
        cache = str(cache_directory() / "datasets")
        train = load_dataset("parquet", data_files=shards, split="train", cache_dir=cache)
        others = {"validation": validation, "test": test}
        own = files(train=str(Path(shards[0]).absolute()), root=root, **others) if any(others.values()) else {}
    tables = {name: _renamed(own[name], renamed or {}) for name, file in others.items() if file}
    splits = GeneratedText({"train": train, **tables})
    splits.licence = licence_record(manifest)
    return splits


def _renamed(table: Dataset, names: dict[str, str]) -> Dataset:
    for name in names:
        if name not in table.column_names:
            problem = "is no column of the validation or test file."
            raise UserError("data.source.renamed", name, problem, nearest_hint(name, table.column_names))
    return table.rename_columns(names)
