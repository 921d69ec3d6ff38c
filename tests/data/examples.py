"""Small tables, a tokenizer of one's own and a short way to a data module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from potstill.config.schema import ColumnsConfig, DataConfig
from potstill.data.build import build_data
from potstill.data.labels import label_names
from potstill.data.module import DataModule
from potstill.data.tokenizers import _train

TEXT = "which card pays my rent today and where does the train to the old mill stop before noon"
WORDS = TEXT.split(" ")
CHAT = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


def sentence(number: int) -> str:
    """Two to seven words; a different text for every number."""
    return " ".join(WORDS[(number * step) % len(WORDS)] for step in range(1, 2 + number % 6)) + f" {number}"


def queries(num_examples: int, start: int = 0) -> Dataset:
    """Columns text, intent (three of them), domain."""
    numbers = range(start, start + num_examples)
    columns = {
        "text": [sentence(number) for number in numbers],
        "intent": [("pay", "travel", "chat")[number % 3] for number in numbers],
        "domain": [("bank", "road")[number % 2] for number in numbers],
    }
    return Dataset.from_dict(columns)


def tokenizer(**settings: Any) -> PreTrainedTokenizerBase:
    """Byte-level, trained on `TEXT`; begins every text with its one special token."""
    made = _train([TEXT] * 4, 320)
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def without_special_tokens() -> PreTrainedTokenizerBase:
    """Adds nothing, and has no beginning, end or padding token."""
    backend = _train([TEXT] * 4, 320).backend_tokenizer
    backend.post_processor = None  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def config(**changes: Any) -> DataConfig:
    """Text classification of `queries`, unless changed."""
    changes = {
        "task": "text_classification",
        "columns": ColumnsConfig(text="text", label="intent"),
        "slices": ["domain"],
        "batch_size": 8,
        "max_length": 16,
    } | changes
    return DataConfig(**changes)


def build(splits: Mapping[Any, Dataset], data: DataConfig | None = None, **changes: Any) -> DataModule:
    data = data or config()
    options = {"labelled_only": False, "seed": 0, "num_workers": 0, "limit_batches": None} | changes
    if "tokenizer" not in options:
        options["tokenizer"] = tokenizer()
    source = splits if isinstance(splits, DatasetDict) else DatasetDict(splits)
    return build_data(data, source, label_names=label_names(data, source), **options)
