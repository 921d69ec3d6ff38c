"""Files of text for models that begin from nothing: with a tokenizer of their own."""

from __future__ import annotations

from datasets import Dataset

from potstill.data.embedded import Corpus
from potstill.data.sources import files
from potstill.data.tokenizers import byte_level_bpe
from potstill.errors import UserError


def files_with_tokenizer(
    train: str,
    validation: str | None = None,
    test: str | None = None,
    format: str | None = None,
    root: str = ".",
    vocabulary_size: int = 4096,
) -> Corpus:
    """Local files, one a split, as `sources.files` reads them, and a byte-level BPE of vocabulary_size tokens.

    It is trained on all columns of text of the training file, before a validation split is taken out of it.
    Raises UserError where there is no such column.
    """
    corpus = Corpus(files(train, validation, test, format, root))
    corpus.tokenizer, corpus.provenance = byte_level_bpe(_texts(corpus["train"], train), vocabulary_size), ""
    return corpus


def _texts(table: Dataset, file: str) -> list[str]:
    columns = [name for name, feature in table.features.items() if getattr(feature, "dtype", None) == "string"]
    if not columns:
        problem = "has no column of text to train a tokenizer on."
        raise UserError("data.source.train", file, problem, "Use data=files with student.tokenizer=NAME_OR_DIRECTORY")
    return [text for name in columns for text in table[name][:] if text]
