"""From a source and its config to the data module."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from potstill.data.clusters import with_groups
from potstill.data.columns import check_columns, tidy
from potstill.data.copies import without_copies
from potstill.data.embeddings import EmbeddingEncoder
from potstill.data.encoders import Encoder, ImageEncoder, TextEncoder
from potstill.data.labels import keep_labels_per_class
from potstill.data.language import LanguageEncoder
from potstill.data.module import DataModule
from potstill.data.quiet import quiet
from potstill.data.splits import complete
from potstill.errors import UserError

ENCODERS = {"text_classification": TextEncoder, "causal_lm": LanguageEncoder, "embedding": EmbeddingEncoder}


def build_data(
    config: Any,
    source_splits: DatasetDict,
    *,
    tokenizer: PreTrainedTokenizerBase | None,
    label_names: list[str] | None,
    labelled_only: bool,
    seed: int,
    num_workers: int,
    limit_batches: int | None,
) -> DataModule:
    """Columns checked and renamed, splits completed, labels thinned out, examples encoded.

    config: the attributes of `schema.DataConfig`. source_splits: what `config.source` returned.
    label_names: `labels.label_names(config, source_splits)`. tokenizer: None for images.
    seed: of the order of the training examples and of the choice of `labels_per_class`.
    Raises UserError for whatever in the config does not fit the source.
    """
    encoder = make_encoder(config, tokenizer)
    with quiet():
        tables = prepare(config, source_splits, label_names, seed)
        examples = {split: encoder.encode(table) for split, table in tables.items()}
    return DataModule(
        examples,
        config.task,
        encoder,
        slices=list(config.slices),
        label_names=label_names,
        batch_size=config.batch_size,
        length_grouping=config.length_grouping,
        seed=seed,
        labelled_only=labelled_only,
        num_workers=num_workers,
        limit_batches=limit_batches,
        pair_by_label=config.pair_by_label,
        balance_by=config.balance_by,
        provenance=getattr(source_splits, "provenance", ""),
    )


def own_tokenizer(source_splits: DatasetDict) -> PreTrainedTokenizerBase | None:
    """The tokenizer that the source brings with it, or None."""
    return getattr(source_splits, "tokenizer", None)


def make_encoder(config: Any, tokenizer: PreTrainedTokenizerBase | None) -> Encoder:
    """The encoder of the config's task. Raises UserError where a text task has no tokenizer."""
    if config.task == "image_classification":
        return ImageEncoder()
    if tokenizer is None:
        problem = f"{config.task} needs a tokenizer, and neither the student, the data nor the teacher brings one."
        raise UserError("student.tokenizer", None, problem, "Name one: student.tokenizer=PATH")
    return ENCODERS[config.task](tokenizer, config.max_length)


def prepare(config: Any, source_splits: DatasetDict, label_names: list[str] | None, seed: int) -> dict[str, Dataset]:
    """Tidy tables (`columns.tidy`) of train, validation and test, before anything is encoded."""
    check_columns(config, source_splits)
    tables = {str(split): tidy(table, config, str(split), label_names) for split, table in source_splits.items()}
    if config.keep_near_together and not {"validation", "test"} <= tables.keys():
        tables = with_groups(tables)
    tables = complete(tables, config.validation_fraction, config.test_fraction)
    if config.drop_copies:
        tables = without_copies(tables, config.drop_copies)
    if config.labels_per_class is not None:
        names = _classes(config, label_names)
        tables["train"] = keep_labels_per_class(tables["train"], config.labels_per_class, seed, names)
    return tables


def _classes(config: Any, label_names: list[str] | None) -> list[str]:
    if label_names is None:
        problem = f"has no meaning for {config.task}: there are no classes."
        raise UserError("data.labels_per_class", config.labels_per_class, problem, "Set data.labels_per_class=null")
    return label_names
