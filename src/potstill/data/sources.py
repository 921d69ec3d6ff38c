"""Where examples come from: files, the hub. Each function returns splits and is named by `data.source._target_`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict
from datasets.exceptions import DatasetGenerationError

from potstill.data.quiet import quiet
from potstill.data.splits import SPLITS
from potstill.data.tokenizers import cache_directory
from potstill.errors import UserError, nearest_hint

logger = logging.getLogger(__name__)

FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".arrow": "arrow"}


def files(
    train: str,
    validation: str | None = None,
    test: str | None = None,
    format: str | None = None,
    root: str = ".",
) -> DatasetDict:
    """Local files, one a split.

    Relative paths begin at root, and a relative root at the current directory. format: json (lines of it, too), csv,
    parquet or arrow; default: what the suffix says. Raises UserError for a file that is missing or cannot be read.
    """
    paths = {"train": train, "validation": validation, "test": test}
    with quiet():
        return DatasetDict({split: _read(split, Path(root, path), format) for split, path in paths.items() if path})


def hub(
    name: str, revision: str | None = None, config_name: str | None = None, splits: dict[str, str] | None = None
) -> DatasetDict:
    """A data set of the Hugging Face hub, or a directory laid out like one.

    revision: a commit, so that the run can be repeated; without one a warning says so. splits: names there of our
    splits, `{"validation": "dev"}`; default: the same names. Raises UserError where the set or a split cannot be had.
    """
    if revision is None and not Path(name).exists():
        logger.warning("data.source.revision is not set: '%s' may change, and then this run is not repeatable.", name)
    try:
        with quiet():
            found = datasets.load_dataset(name, config_name, revision=revision)
    except (OSError, ValueError) as error:  # not found, gated, no network, no such configuration
        fix = "Check data.source.name, .revision and .config_name, the network, and `hf auth login` for private sets."
        raise UserError("data.source.name", name, f"cannot be loaded: {error}", fix) from error
    assert isinstance(found, DatasetDict)
    return _rename(found, splits or {split: split for split in SPLITS if split in found})


def _rename(found: DatasetDict, splits: dict[str, str]) -> DatasetDict:
    for split, theirs in splits.items():
        if theirs not in found:
            problem = "is not a split of this data set."
            raise UserError(f"data.source.splits.{split}", theirs, problem, nearest_hint(theirs, map(str, found)))
    return DatasetDict({split: found[theirs] for split, theirs in splits.items()})


def _read(split: str, path: Path, format: str | None) -> Dataset:
    key, file = f"data.source.{split}", path.expanduser().absolute()
    if not file.is_file():
        raise UserError(key, str(path), f"no such file: {file}", _siblings(file))
    if not file.stat().st_size:
        raise UserError(key, str(path), f"the file is empty: {file}", "Give it examples, or leave the split out.")
    options: dict[str, Any] = {"sep": "\t"} if file.suffix == ".tsv" else {}
    reader = format or FORMATS.get(file.suffix, "")
    if reader not in FORMATS.values():
        problem = f"is not a format potstill reads ({file.name})."
        raise UserError("data.source.format", reader or file.suffix, problem, nearest_hint(reader, FORMATS.values()))
    try:
        return datasets.load_dataset(
            reader,
            data_files={split: str(file)},
            split=split,
            cache_dir=str(cache_directory() / "datasets"),
            **options,
        )
    except (DatasetGenerationError, ValueError) as error:
        problem = f"cannot be read as {reader}: {error.__cause__ or error}"
        raise UserError(key, str(path), problem, "Check the file, or say what it is: data.source.format=...") from error


def _siblings(file: Path) -> str:
    if not file.parent.is_dir():
        return f"Nor is there a directory {file.parent}. Set data.source.root; if relative, it begins at {Path.cwd()}"
    return nearest_hint(file.name, (other.name for other in file.parent.iterdir() if other.suffix in FORMATS))
