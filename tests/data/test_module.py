from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from potstill.config.schema import ColumnsConfig
from potstill.data.batch import IGNORE, Batch
from potstill.data.module import DataModule
from potstill.errors import UserError
from tests.data.examples import build, config, queries, tokenizer

SPLITS = ("train", "validation", "test")


def keys(loader: Any) -> list[str]:
    return [key for batch in loader for key in batch.keys]


def test_evaluation_yields_the_examples_in_the_order_of_the_views_beside_them() -> None:
    splits = {"train": queries(30), "validation": queries(9, 100), "test": queries(21, 200)}
    data = build(splits, config(max_length=64))
    made = tokenizer()
    texts = [
        made.decode(ids, skip_special_tokens=True)
        for batch in data.test_dataloader()
        for ids in batch.inputs["input_ids"]
    ]
    assert texts == data.example_text("test") == splits["test"]["text"][:]
    assert data.slice_values("test") == {"domain": splits["test"]["domain"][:]}
    assert data.num_examples("test") == 21
    assert keys(data.val_dataloader()) == keys(data.val_dataloader())


def test_labels_are_numbers_in_the_order_of_the_names() -> None:
    splits = {"train": queries(30), "validation": queries(9, 100), "test": queries(21, 200)}
    data = build(splits)
    labels = torch.cat([batch.labels for batch in data.test_dataloader()]).tolist()
    names = ["chat", "pay", "travel"]
    assert data.label_names == names
    assert [names[label] for label in labels] == splits["test"]["intent"][:]


def test_a_baseline_trains_on_labelled_examples_alone_but_is_tested_on_all() -> None:
    data = config(labels_per_class=3)
    student, baseline = (build({"train": queries(200)}, data, labelled_only=only) for only in (False, True))
    assert baseline.num_examples("train") == 9
    assert {int(label) for batch in baseline.train_dataloader() for label in batch.labels} == {0, 1, 2}
    labelled = {
        key
        for batch in student.train_dataloader()
        for key, label in zip(batch.keys, batch.labels.tolist(), strict=True)
        if label != IGNORE
    }
    assert set(keys(baseline.train_dataloader())) == labelled, "both must be given the same labels"
    assert keys(baseline.test_dataloader()) == keys(student.test_dataloader())
    assert baseline.fingerprint == student.fingerprint


def test_no_label_at_all_is_refused_where_every_term_needs_one() -> None:
    splits = {name: queries(9, start).remove_columns("intent") for name, start in zip(SPLITS, (0, 50, 90), strict=True)}
    data = config(columns=ColumnsConfig(text="text"), label_names=["a", "b"])
    assert build(splits, data).num_examples("train") == 9
    with pytest.raises(UserError, match="no training example has a gold label"):
        build(splits, data, labelled_only=True)


def test_a_limit_of_batches_holds_for_every_split_and_every_view() -> None:
    data = build({"train": queries(300)}, limit_batches=2)
    assert data.batches_per_epoch == 2
    for split, loader in zip(
        SPLITS, (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()), strict=True
    ):
        assert len(keys(loader)) == data.num_examples(split) == len(data.slice_values(split)["domain"]) <= 16


def test_length_grouping_changes_the_batches_and_not_the_examples() -> None:
    plain, grouped = (build({"train": queries(200)}, config(length_grouping=on)) for on in (False, True))
    assert sorted(keys(plain.train_dataloader())) == sorted(keys(grouped.train_dataloader()))

    def padded(data: DataModule) -> int:
        return sum(batch.inputs["input_ids"].numel() for batch in data.train_dataloader())

    assert padded(grouped) < padded(plain)


def test_workers_yield_what_the_process_itself_would() -> None:
    alone, helped = (build({"train": queries(60)}, num_workers=workers) for workers in (0, 2))
    assert keys(alone.train_dataloader()) == keys(helped.train_dataloader())


def test_each_rank_of_a_trainer_gets_its_share() -> None:
    data = build({"train": queries(60)})
    whole = [set(batch.keys) for batch in data.train_dataloader()]
    for rank in (0, 1):
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2, strategy=strategy)  # type: ignore[assignment]
        for number, batch in enumerate(data.train_dataloader()):
            whole[number] -= set(batch.keys)
    assert not any(whole)


def test_the_trainer_shuffles_anew_every_epoch_and_drops_nothing() -> None:
    data, seen = build({"train": queries(60)}), Recorder()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(seen, data.train_dataloader())
    first, second = seen.epochs
    assert sorted(first) == sorted(second)
    assert len(first) == data.num_examples("train")
    assert first != second


class Recorder(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs: list[list[str]] = []

    def on_train_epoch_start(self) -> None:
        self.epochs.append([])

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:  # noqa: ARG002  Lightning's name
        self.epochs[-1] += batch.keys
        return self.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_scored_bytes_and_text_of_a_language_model_are_aligned() -> None:
    columns = ColumnsConfig(prompt="text", completion="intent")
    data = build({"train": queries(80)}, config(task="causal_lm", columns=columns, max_length=64))
    texts = data.example_text("validation")
    assert data.scored_bytes("validation") == [len(text.split("\n")[1]) for text in texts]


@pytest.mark.parametrize(
    "changes",
    [
        {"slices": []},
        {"max_length": 8},
        {"test_fraction": 0.3},
        {"label_names": ["pay", "chat", "travel"]},
        {"labels_per_class": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_fingerprint_tells_data_apart_that_is_not_the_same(changes: dict) -> None:
    table = queries(100)
    assert build({"train": table}).fingerprint == build({"train": table}).fingerprint
    assert build({"train": table}, config(**changes)).fingerprint != build({"train": table}).fingerprint


def test_the_fingerprint_moves_with_one_changed_label_of_one_example() -> None:
    table = queries(100)
    intents = table["intent"][:]
    changed = table.remove_columns("intent").add_column(
        "intent", ["pay" if intents[0] != "pay" else "chat", *intents[1:]]
    )
    assert build({"train": changed}).fingerprint != build({"train": table}).fingerprint


def test_runs_with_other_labels_but_the_same_validation_data_compare() -> None:
    table = queries(200)
    few, many, other = (
        build({"train": table}, config(**changes))
        for changes in ({"labels_per_class": 2}, {"labels_per_class": 5}, {"validation_fraction": 0.3})
    )
    assert few.fingerprint != many.fingerprint
    assert few.validation_fingerprint == many.validation_fingerprint
    assert other.validation_fingerprint != many.validation_fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_readers_outlive_a_signal_that_their_trainer_still_answers(number: signal.Signals) -> None:
    """Terminals and schedulers send it to every process of a command."""
    splits = {"train": queries(60), "validation": queries(9, 100), "test": queries(21, 200)}
    batches = iter(build(splits, num_workers=1).train_dataloader())
    found = [*next(batches).keys]  # by now the reader is there
    for worker in batches._workers:  # type: ignore[attr-defined]
        os.kill(worker.pid, number)
    assert len(found + keys(batches)) == 60
