from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from potstill.config.schema import ColumnsConfig
from potstill.data.batch import IGNORE
from potstill.data.microbatch import cut
from potstill.data.pairs import partners
from potstill.errors import UserError

from .examples import build, config, queries, sentence, without_special_tokens

SINGLE = {"task": "embedding", "columns": ColumnsConfig(text="text", label="intent")}
TRIPLETS = ColumnsConfig(anchor="question", positive="answer", negative="wrong")


def triplets(num_examples: int = 60, **columns: Any) -> Dataset:
    numbers = range(num_examples)
    table = {
        "question": [sentence(number) for number in numbers],
        "answer": [sentence(100 + number) for number in numbers],
        "wrong": [[sentence(200 + number), sentence(300 + number)] for number in numbers],
    }
    return Dataset.from_dict({**table, **columns})


def of_columns(table: Dataset, columns: ColumnsConfig, **changes: Any) -> Any:
    return build({"train": table}, config(task="embedding", columns=columns, slices=[], **changes))


def single(**changes: Any) -> Any:
    splits = {"train": queries(50), "validation": queries(10, 100), "test": queries(10, 200)}
    return build(splits, config(**SINGLE, **changes))


def texts_of(batch: Any) -> list[list[list[int]]]:
    """Token ids without padding, `[B][K]`."""
    ids, masks = batch.inputs["input_ids"], batch.inputs["attention_mask"].bool()
    return [[text[kept].tolist() for text, kept in zip(*each, strict=True)] for each in zip(ids, masks, strict=True)]


def test_every_text_of_an_example_is_read_on_its_own() -> None:
    data = of_columns(triplets(), TRIPLETS)
    rows = data.examples["train"]
    batch = data.training_batch([0, 1, 2])
    assert batch.inputs["input_ids"].shape[:2] == (3, 4), "an anchor, a positive and two negatives"
    tokenizer = data.encoder.tokenizer
    for row, texts in zip(rows.select(range(3)), texts_of(batch), strict=True):
        wanted = [row["anchor"], row["positive"], *row["negative"]]
        assert texts == [tokenizer(text, truncation=True, max_length=16)["input_ids"] for text in wanted]
    assert len(set(batch.keys)) == 3


def test_pairs_of_one_anchor_stay_in_one_split() -> None:
    questions = [sentence(number // 3) for number in range(60)]
    table = Dataset.from_dict({"question": questions, "answer": [sentence(500 + n) for n in range(60)]})
    columns = ColumnsConfig(anchor="question", positive="answer")
    data = of_columns(table, columns, validation_fraction=0.3, test_fraction=0.3)
    found = [set(table["anchor"]) for table in data.examples.values()]
    assert all(found)
    assert sum(map(len, found)) == len(set.union(*found))


def test_pairs_of_one_anchor_have_one_label_and_others_another() -> None:
    questions = [sentence(number // 2) for number in range(60)]
    table = Dataset.from_dict({"question": questions, "answer": [sentence(500 + n) for n in range(60)]})
    data = of_columns(table, ColumnsConfig(anchor="question", positive="answer"))
    rows = data.examples["train"]
    by_anchor = dict(zip(rows["anchor"], rows["label"], strict=True))
    assert len(set(by_anchor.values())) == len(by_anchor)
    assert rows["label"][:] == [by_anchor[anchor] for anchor in rows["anchor"]]
    assert min(rows["label"][:]) >= 0


def test_scores_of_pairs_reach_the_batch() -> None:
    scores = [number / 7 for number in range(60)]
    columns = ColumnsConfig(anchor="question", positive="answer", score="score")
    data = of_columns(triplets(score=scores), columns)
    batch = next(iter(data.val_dataloader()))
    assert batch.labels.dtype == torch.float32
    assert set(batch.labels.tolist()) <= {float(np.float32(score)) for score in scores}
    assert batch.take([]).labels.dtype == torch.float32


@pytest.mark.parametrize(
    ("columns", "table", "key", "words"),
    [
        ({"text": "question", "negative": "wrong"}, {}, "data.columns.negative", "belongs to an anchor"),
        ({"anchor": "question"}, {}, "data.columns", "anchor with positive"),
        ({"text": "question", "anchor": "question", "positive": "answer"}, {}, "data.columns", "exactly one of these"),
        ({"anchor": "question", "positive": "reply"}, {}, "data.columns.positive", "is not a column"),
        (
            {"anchor": "question", "positive": "answer", "negative": "wrong", "score": "score"},
            {"score": [0.5] * 60},
            *("data.columns.score", "no meaning"),
        ),
        (
            {"anchor": "question", "positive": "answer", "score": "score"},
            {"score": [0.5] * 30 + [None] * 30},
            *("data.columns.score", "no finite number"),
        ),
        (
            {"anchor": "question", "positive": "answer", "negative": "wrong"},
            {"wrong": [["one"]] * 30 + [["one", "two"]] * 30},
            *("data.columns.negative", "1 negatives in one example, 2 in another"),
        ),
        (
            {"anchor": "question", "positive": "answer", "negative": "wrong"},
            {"wrong": [[["one"]]] * 60},
            *("data.columns.negative", "not text"),
        ),
    ],
)
def test_columns_that_make_no_examples_are_refused(
    columns: dict[str, str], table: dict[str, Any], key: str, words: str
) -> None:
    base = triplets()
    rows = Dataset.from_dict({**{name: base[name][:] for name in base.column_names}, **table})
    with pytest.raises(UserError, match=words) as caught:
        of_columns(rows, ColumnsConfig(**columns), validation_fraction=0.4, test_fraction=0.4)
    assert caught.value.key == key


def test_a_text_without_tokens_is_refused() -> None:
    table = queries(50).map(lambda row: {"text": "" if row["text"].endswith(" 7") else row["text"]})
    tokenizer = without_special_tokens()
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    with pytest.raises(UserError, match="no token"):
        build({"train": table}, config(**SINGLE), tokenizer=tokenizer)


def test_pairs_share_a_label_and_are_drawn_anew_for_every_epoch() -> None:
    data = single(pair_by_label=True)
    label_of = {tuple(row["input_ids"][0]): row["label"] for row in data.examples["train"]}
    loader = data.train_dataloader()
    drawn = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        pairs = [texts for batch in loader for texts in texts_of(batch)]
        assert len(pairs) == 50
        assert all(tuple(first) != tuple(second) for first, second in pairs)
        assert all(label_of[tuple(first)] == label_of[tuple(second)] for first, second in pairs)
        drawn.append({tuple(first): tuple(second) for first, second in pairs})
    assert drawn[0].keys() == drawn[1].keys()
    assert sum(drawn[0][first] != drawn[1][first] for first in drawn[0]) > 25


def test_a_training_that_goes_on_meets_the_pairs_it_would_have_met() -> None:
    def keys(num_seen: int) -> list[tuple[str, ...]]:
        loader = single(pair_by_label=True).train_dataloader()
        loader.load_state_dict({"num_batches": num_seen})
        batches = [batch.keys for batch in loader]
        loader.sampler.set_epoch(loader.sampler.epoch + 1)
        return [*batches, *(batch.keys for batch in loader)]

    assert keys(3) == keys(0)[3:]


def test_validation_and_fingerprint_know_nothing_of_pairs() -> None:
    paired, alone = single(pair_by_label=True), single()
    assert paired.fingerprint == alone.fingerprint, "a baseline trained on pairs is compared on the same data"
    assert next(iter(paired.val_dataloader())).inputs["input_ids"].shape[1] == 1
    assert next(iter(paired.test_dataloader())).inputs["input_ids"].shape[1] == 1


def test_a_rank_without_examples_gets_an_empty_batch_of_pairs() -> None:
    view = single(pair_by_label=True).view("train")
    assert view[[]].inputs["input_ids"].shape[:2] == (0, 2)


def test_nobody_without_a_label_has_a_partner() -> None:
    labels_N = np.array([3, IGNORE, 3, IGNORE, 5, 3])
    for epoch in range(5):
        partner_N = partners(labels_N, seed=0, epoch=epoch)
        assert partner_N[[1, 3, 4]].tolist() == [1, 3, 4]
        assert all(
            labels_N[partner] == 3 and partner != own for own, partner in enumerate(partner_N) if own in (0, 2, 5)
        )


def test_partners_are_drawn_evenly() -> None:
    drawn = np.stack([partners(np.zeros(5, dtype=int), seed=1, epoch=epoch) for epoch in range(400)])
    shares = [np.bincount(drawn[:, 0], minlength=5)[1:] / 400]
    np.testing.assert_allclose(shares, 0.25, atol=0.08)


def test_a_token_budget_counts_every_text_of_an_example() -> None:
    batch = of_columns(triplets(), TRIPLETS, batch_size=16).training_batch(list(range(16)))
    pieces = cut(batch, None, 80)
    assert len(pieces) > 1
    assert sorted(key for piece in pieces for key in piece.keys) == sorted(batch.keys)
    for piece in pieces:
        mask = piece.inputs["attention_mask"]
        assert len(piece) == 1 or mask.numel() <= 80
        assert mask.any(dim=0).any(dim=0)[[0, -1]].all(), "trimmed"
    whole = dict(zip(batch.keys, texts_of(batch), strict=True))
    assert all(whole[key] == texts for piece in pieces for key, texts in zip(piece.keys, texts_of(piece), strict=True))
