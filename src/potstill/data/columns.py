"""From the columns of a source to the columns the rest of potstill reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets

from potstill.data.batch import IGNORE
from potstill.data.content import content_hash
from potstill.errors import UserError, nearest_hint

REQUIRED = {  # alternatives per task: exactly one must be given
    "text_classification": [("text",)],
    "image_classification": [("image",)],
    "causal_lm": [("text",), ("prompt", "completion"), ("messages",)],
    "embedding": [("text",), ("anchor", "positive")],
}
WEIGHT, GROUP, LOGPROBS = "weight", "group", "logprobs"
OPTIONAL = {"text_classification": ("text_pair",), "embedding": ("negative",)}
STRINGS = ("text", "text_pair", "prompt", "completion", "anchor", "positive", "negative")


def slice_column(name: str) -> str:
    """Prefixed, so that no slice collides with a column of ours."""
    return f"slice:{name}"


def check_columns(config: Any, splits: Mapping[Any, Dataset]) -> None:
    """Raises UserError where a column the config names is not in every split, or a split is empty."""
    columns = input_columns(config) | ({"label": config.columns.label} if config.columns.label else {})
    if config.task == "embedding":
        columns |= _embedding_columns(config.columns)
    if config.columns.group:
        columns |= {GROUP: config.columns.group}
    for name in (WEIGHT, LOGPROBS):
        if (column := getattr(config.columns, name)) and "train" in splits:
            _check_present(f"data.columns.{name}", column, "train", splits["train"])
    for split, table in splits.items():
        if not len(table):
            raise UserError("data.source", split, f"the {split} split has no examples.", "Check the file or hub name.")
        for name, column in columns.items():
            _check_present(f"data.columns.{name}", column, split, table)
        for column in config.slices:
            _check_present("data.slices", column, split, table)


def input_columns(config: Any) -> dict[str, str]:
    """`{our name: column of the source}` of what the model reads.

    Raises UserError unless exactly one of the task's alternatives is given in full.
    """
    alternatives = REQUIRED[config.task]
    given = [group for group in alternatives if any(getattr(config.columns, name) for name in group)]
    if len(given) != 1 or not all(getattr(config.columns, name) for name in given[0]):
        wanted = ", or ".join(" with ".join(group) for group in alternatives)
        have = {name: getattr(config.columns, name) for group in alternatives for name in group}
        fix = f"For example: data.columns.{alternatives[0][0]}=COLUMN"
        raise UserError("data.columns", have, f"{config.task} reads {wanted}: exactly one of these.", fix)
    names = given[0] + OPTIONAL.get(config.task, ())
    return {name: getattr(config.columns, name) for name in names if getattr(config.columns, name)}


def tidy(table: Dataset, config: Any, split: str, label_names: list[str] | None) -> Dataset:
    """The table under our names: the inputs, `label` as class number, `slice:NAME` as text, and `content`.

    label: `IGNORE` where there is none; the score of a pair that has one, else of a pair a number that its anchor
    decides. content: hash of the inputs alone, so that one text under two labels is one content. group: hash of the
    column of that name or, of pairs, of the anchor. weight: where the config names a column; 1 where a split has none.
    logprobs: likewise; null where a split has none.
    Raises UserError for an input that is null or no text, and for a label that is not among the names.
    """
    columns = input_columns(config)
    score = config.columns.score if config.task == "embedding" else None
    features = Features({"content": Value("string"), "label": Value("float32" if score else "int64")})
    if group := config.columns.group or columns.get("anchor"):
        features[GROUP] = Value("string")
    if config.columns.weight:
        features[WEIGHT] = Value("float32")
    if config.columns.logprobs:
        features[LOGPROBS] = Value("string")
    features.update({slice_column(name): Value("string") for name in config.slices})
    label = config.columns.label if label_names else None
    options = {
        "split": split,
        "columns": columns,
        "label": (label, table.features[label], _numbered(label_names)) if label else None,
        "score": score,
        "group": group,
        "weight": config.columns.weight,
        "logprobs": config.columns.logprobs,
        "slices": {name: table.features[name] for name in config.slices},
    }
    facts = table.map(
        _facts,
        batched=True,
        with_indices=True,
        fn_kwargs=options,
        remove_columns=table.column_names,
        features=features,
        load_from_cache_file=False,  # a cache keyed by a file's time of change is one that can be stale
    )
    inputs = table.select_columns(list(columns.values()))
    inputs = inputs.rename_columns({column: name for name, column in columns.items()})
    return concatenate_datasets([inputs, facts], axis=1)


def spell(value: Any, feature: Any) -> str | None:
    """A label or slice as text; None where there is none (null, empty, and what `datasets` means by a class of -1)."""
    if isinstance(feature, ClassLabel) and isinstance(value, int):
        return str(feature.int2str(value)) if value >= 0 else None
    if isinstance(value, float):  # whole numbers in a column with gaps arrive as floats
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() else value
    return None if value is None or value == "" else str(value)


def _facts(
    rows: dict[str, list[Any]],
    indices: list[int],
    *,
    split: str,
    columns: dict[str, str],
    label: tuple[str, Any, dict[str, int]] | None,
    score: str | None,
    group: str | None,
    weight: str | None,
    logprobs: str | None,
    slices: dict[str, Any],
) -> dict[str, list[Any]]:
    for name, column in columns.items():
        _check_values(name, column, rows[column], indices, split)
    inputs = zip(*(rows[column] for column in columns.values()), strict=True)
    facts: dict[str, list[Any]] = {"content": [content_hash(*columns, *values) for values in inputs]}
    facts["label"] = _label_ids(rows, label) if label else [IGNORE] * len(indices)
    if group:
        facts[GROUP] = [content_hash(value) for value in rows[group]]
    if "anchor" in columns and not label:
        facts["label"] = [int(content_hash(anchor)[:15], 16) for anchor in rows[columns["anchor"]]]
    if score:
        facts["label"] = _numbers("score", score, rows[score], indices, split)
    if weight:
        given = rows.get(weight, [1.0] * len(indices))
        facts[WEIGHT] = _numbers("weight", weight, given, indices, split, least=0.0)
    if logprobs:
        facts[LOGPROBS] = rows.get(logprobs, [None] * len(indices))
    for name, feature in slices.items():
        facts[slice_column(name)] = [spell(value, feature) or "(none)" for value in rows[name]]
    return facts


def _check_values(name: str, column: str, values: list[Any], indices: list[int], split: str) -> None:
    for index, value in zip(indices, values, strict=True):
        if value is None:
            problem = f"is null in example {index} of the {split} split."
            raise UserError(f"data.columns.{name}", column, problem, "Leave such examples out of the source.")
        texts = value if name == "negative" and isinstance(value, list) else [value]
        if name in STRINGS and not all(isinstance(text, str) for text in texts):
            problem = f"holds {type(value).__name__}, not text, in example {index} of the {split} split."
            raise UserError(f"data.columns.{name}", column, problem, "Name the column that holds the text.")


def _embedding_columns(columns: Any) -> dict[str, str]:
    """The score of pairs, if they have one. Raises UserError for columns that say the same thing twice, or nothing."""
    if columns.negative and not columns.anchor:
        fix = "Name them: data.columns.anchor=COLUMN data.columns.positive=COLUMN data.columns.text=null"
        raise UserError("data.columns.negative", columns.negative, "belongs to an anchor and a positive.", fix)
    if not columns.score:
        return {}
    for name in ("label", "negative", "text"):
        if getattr(columns, name):
            problem = f"scores pairs, which leaves data.columns.{name}={getattr(columns, name)} no meaning."
            raise UserError("data.columns.score", columns.score, problem, f"Set data.columns.{name}=null")
    return {"score": columns.score}


def _numbers(
    name: str, column: str, values: list[Any], indices: list[int], split: str, least: float = -math.inf
) -> list[float]:
    for index, value in zip(indices, values, strict=True):
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or value < least:
            wanted = "no finite number" if least == -math.inf else f"no finite number >= {least:g}"
            problem = f"holds {value!r}, {wanted}, in example {index} of the {split} split."
            raise UserError(f"data.columns.{name}", column, problem, "Leave such examples out of the source.")
    return [float(value) for value in values]


def _label_ids(rows: dict[str, list[Any]], label: tuple[str, Any, dict[str, int]]) -> list[int]:
    column, feature, ids = label
    names = [spell(value, feature) for value in rows[column]]
    for name in names:
        if name is not None and name not in ids:
            problem = f"lacks the label '{name}', which occurs in the data."
            raise UserError("data.label_names", list(ids), problem, nearest_hint(name, ids))
    return [IGNORE if name is None else ids[name] for name in names]


def _numbered(names: list[str] | None) -> dict[str, int]:
    return {name: number for number, name in enumerate(names or [])}


def _check_present(key: str, column: str, split: str, table: Dataset) -> None:
    if column not in table.column_names:
        problem = f"is not a column of the {split} split."
        raise UserError(key, column, problem, nearest_hint(column, table.column_names))
