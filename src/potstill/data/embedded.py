"""Data that every installation has: no download, no account."""

from __future__ import annotations

import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from datasets import Array2D, Dataset, DatasetDict, Features, Value
from sklearn.datasets import load_digits
from transformers import PreTrainedTokenizerBase

from potstill.data.content import content_hash, unit_interval
from potstill.data.splits import SPLITS, check_fractions
from potstill.data.tokenizers import byte_level_bpe
from potstill.errors import UserError

FILE_CHARACTERS = 16_000  # taken of each file, so that a few huge ones (pydoc's topics, encodings) do not fill a split
NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


class Corpus(DatasetDict):
    """Splits that bring their own tokenizer.

    provenance: what the source depends on beyond its text; enters the data's fingerprint.
    """

    tokenizer: PreTrainedTokenizerBase
    provenance: str


def digits() -> DatasetDict:
    """1,797 handwritten digits of 8 x 8 pixels (scikit-learn's copy of the UCI data set), all in `train`.

    Columns: `image` (values in [0, 1]), `label` and `digit` (the label as a slice), both text.
    """
    pixels, targets = load_digits(return_X_y=True)
    images = (np.asarray(pixels, dtype=np.float32) / 16).reshape(-1, 8, 8)
    names = [str(label) for label in np.asarray(targets)]
    features = Features({"image": Array2D((8, 8), "float32"), "label": Value("string"), "digit": Value("string")})
    columns = {"image": list(images), "label": names, "digit": names}
    return DatasetDict({"train": Dataset.from_dict(columns, features=features)})


def stdlib(
    block_length: int = 128,
    max_bytes: int = 3_000_000,
    vocabulary_size: int = 4096,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
) -> Corpus:
    """The source of the running Python's standard library, tests left out, as text for a language model.

    Columns: `text`, blocks of about block_length tokens, and `package`, the top-level package or module. A file (its
    first 16,000 characters) is on one side of the split as a whole, by the hash of its content. max_bytes: of source
    in all; which files, says the hash too. The tokenizer is a byte-level BPE of vocabulary_size tokens, trained on the
    training files alone.
    Raises UserError where this Python carries no source, or a split gets no file.
    """
    check_fractions(validation_fraction, test_fraction)
    files: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for package, text in _library_files(max_bytes):
        files[_side(text, validation_fraction, test_fraction)].append((package, text))
    for split, members in files.items():
        if not members:
            problem = f"leaves no file of this Python's standard library for the {split} split."
            raise UserError("data.source.max_bytes", max_bytes, problem, "Raise it, or use a Python with its source.")
    tokenizer = byte_level_bpe([text for _, text in files["train"]], vocabulary_size)
    corpus = Corpus({split: _blocks(members, tokenizer, block_length) for split, members in files.items()})
    corpus.tokenizer, corpus.provenance = tokenizer, f"Python {platform.python_version()}"
    return corpus


def _library_files(max_bytes: int) -> Iterator[tuple[str, str]]:
    """`(package, text)` of files in the order of their hash, until max_bytes are spent."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for path in root.rglob("*.py"):
        place = path.relative_to(root)
        if NOT_LIBRARY.isdisjoint(place.parts):
            text = path.read_text(encoding="utf-8", errors="replace")[:FILE_CHARACTERS]
            found.append((content_hash(text), place.with_suffix("").parts[0], text))
    for _, package, text in sorted(found):
        max_bytes -= len(text.encode())
        if max_bytes < 0:
            return
        yield package, text


def _side(text: str, validation_fraction: float, test_fraction: float) -> str:
    key = content_hash(text)
    if unit_interval(key, "test") < test_fraction:
        return "test"
    return "validation" if unit_interval(key, "validation") < validation_fraction else "train"


def _blocks(files: list[tuple[str, str]], tokenizer: PreTrainedTokenizerBase, block_length: int) -> Dataset:
    """Text cut where a token ends, so that a block has block_length tokens with the one that begins it."""
    texts, packages = [], []
    encoded = tokenizer([text for _, text in files], add_special_tokens=False, return_offsets_mapping=True)
    for (package, text), offsets in zip(files, encoded["offset_mapping"], strict=True):
        starts = [first for first, _ in offsets[:: block_length - 1]]
        blocks = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
        texts += blocks
        packages += [package] * len(blocks)
    return Dataset.from_dict({"text": texts, "package": packages})
