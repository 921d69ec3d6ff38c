"""The data module: global batches for the Trainer, and what evaluation asks about the examples."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from potstill.data.batch import IGNORE, Batch
from potstill.data.batches import BatchView, GlobalBatches, PairView
from potstill.data.columns import LOGPROBS, WEIGHT, slice_column
from potstill.data.content import content_hash
from potstill.data.encoders import Encoder
from potstill.data.manifest import manifest_of_items
from potstill.data.splits import select
from potstill.data.weights import relative
from potstill.errors import UserError

PREFETCHED = 4  # batches a worker; a long one must not empty the queue
ITEM_DIGITS = 16  # of the hash of an item: 64 bits, so that two of a billion collide once in 30 data sets
TEXT_COLUMNS = ("text", "text_pair", "prompt", "completion", "messages", "anchor", "positive", "negative")


class DataModule(pl.LightningDataModule):
    """Examples of train, validation and test as batches.

    examples: by split, encoded tables (see `encoders`) with `content`, `label` and one `slice:NAME` per slice.
    batch_size: examples of a global batch, over all ranks; each loader yields this rank's share.
    labelled_only: leave unlabelled training examples out; validation and test keep all.
    limit_batches: keep only the first so many batches of each split, for debugging.
    pair_by_label: train on each text with another of its label.
    balance_by: a slice whose values count alike in training, however many rows they have.
    route_by: a slice that says which of several teachers an example has; in the batches, then.
    provenance: what else the fingerprint should tell apart, such as a version of the source.
    Raises UserError where nothing is left to train on.
    """

    def __init__(
        self,
        examples: Mapping[str, Dataset],
        task: str,
        encoder: Encoder,
        *,
        slices: list[str],
        label_names: list[str] | None,
        batch_size: int,
        length_grouping: bool,
        seed: int,
        labelled_only: bool,
        num_workers: int,
        limit_batches: int | None,
        pair_by_label: bool = False,
        balance_by: str | None = None,
        provenance: str = "",
    ) -> None:
        super().__init__()
        self.task, self.encoder, self.slices, self.label_names = task, encoder, slices, label_names
        self.batch_size, self.length_grouping, self.seed = batch_size, length_grouping, seed
        self.num_workers, self.pair_by_label = num_workers, pair_by_label
        self.route_by: str | None = None
        hashes = _hashes(examples)
        self.fingerprint = content_hash(task, encoder.fingerprint, slices, label_names, provenance, hashes)
        self.validation_fingerprint = hashes["validation"]  # the same however the training examples are cut
        self.split_sizes = {
            split: len(table) for split, table in examples.items()
        }  # of all that the fingerprint covers
        self.examples, self._whole = dict(examples), dict(examples)
        if labelled_only and task != "causal_lm":
            self.examples["train"] = _labelled(self.examples["train"])
        if limit_batches:
            self.examples = {name: _first(table, limit_batches * batch_size) for name, table in self.examples.items()}
        self.examples["train"] = relative(self.examples["train"], balance_by)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """A hash of every item of each split, before labels or batches are left out; see `data.manifest`."""
        return manifest_of_items({split: _item_hashes(table) for split, table in self._whole.items()})

    def item_hashes(self, split: str) -> list[str]:
        """Of each example, in evaluation order, as in the manifest."""
        return _item_hashes(self.examples[split])

    @property
    def batches_per_epoch(self) -> int:
        """Global batches, hence optimizer steps, of one pass over the training examples."""
        return -(-self.num_examples("train") // self.batch_size)

    def num_examples(self, split: str) -> int:
        return len(self.examples[split])

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Without Lightning's search for tensors in whatever a batch may be."""
        return batch.to(device)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Its state, kept in every checkpoint, is the number of batches trained on."""
        return self._loader("train", seed=self.seed, lengths=self._lengths() if self.length_grouping else None)

    def first_epoch(self, rank: int, world_size: int) -> DataLoader[Batch]:
        """The batches that training begins with, and a rank's share of each, without a trainer."""
        lengths = self._lengths() if self.length_grouping else None
        return self._loader("train", seed=self.seed, lengths=lengths, place=(rank, world_size))

    def training_batch(self, examples: list[int]) -> Batch:
        """Training examples of these numbers, in the shape of those that are trained on."""
        return self.view("train")[[[each, each] for each in examples] if self.pair_by_label else examples]  # type: ignore[index]

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test")

    def view(self, split: str) -> BatchView:
        """Its examples, a batch for every list of numbers, or of pairs of them."""
        kind = PairView if self.pair_by_label and split == "train" else BatchView
        weight_column = WEIGHT if split == "train" and WEIGHT in self.examples[split].column_names else None
        route_column = slice_column(self.route_by) if self.route_by else None
        return kind(self.examples[split], self.encoder, route_column, weight_column)

    def slice_values(self, split: str) -> dict[str, list[str]]:
        """Per slice column one value an example, in evaluation order; "(none)" where the source has null."""
        return {name: self.examples[split][slice_column(name)][:] for name in self.slices}

    def scored_bytes(self, split: str) -> list[int]:
        """UTF-8 bytes of the scored text, one number an example, in evaluation order. Language models only."""
        return self.examples[split]["scored_bytes"][:]

    def example_text(self, split: str) -> list[str]:
        """Each example as a person would read it, in evaluation order; empty for images."""
        table = self.examples[split]
        columns = [name for name in TEXT_COLUMNS if name in table.column_names]
        if not columns:
            return [""] * len(table)
        rows: Any = table.select_columns(columns)
        return ["\n".join(_readable(row[name]) for name in columns) for row in rows]

    def _loader(
        self,
        split: str,
        seed: int | None = None,
        lengths: np.ndarray | None = None,
        place: tuple[int, int] | None = None,
    ) -> DataLoader[Batch]:
        trainers = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        rank, world_size = place or trainers
        table, is_paired = self.examples[split], self.pair_by_label and split == "train"
        sampler = GlobalBatches(
            len(table),
            self.batch_size,
            rank=rank,
            world_size=world_size,
            seed=seed,
            lengths=lengths,
            labels=np.asarray(table["label"][:]) if is_paired else None,
        )
        # batch_size=None: each index the sampler yields is a list, each item a whole batch
        return PositionedLoader(
            self._num_batches_seen,
            self.view(split),
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=_unchanged,
            persistent_workers=self.num_workers > 0,
            prefetch_factor=PREFETCHED if self.num_workers else None,
            pin_memory=self._is_on_cuda(),
            worker_init_fn=_ignore_signals,
        )

    def _is_on_cuda(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _num_batches_seen(self) -> int:
        assert self.trainer is not None
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.completed

    def _lengths(self) -> np.ndarray | None:
        table = self.examples["train"]
        return np.asarray(table["length"][:]) if "length" in table.column_names else None


class PositionedLoader(DataLoader[Batch]):
    """Says how many batches were trained on, and goes on after so many; its workers may have read further ahead."""

    def __init__(self, num_batches_seen: Callable[[], int], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.num_batches_seen = num_batches_seen

    def state_dict(self) -> dict[str, int]:
        return {"num_batches": self.num_batches_seen()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        assert isinstance(self.sampler, GlobalBatches)
        self.sampler.go_on_after(state["num_batches"])


def _ignore_signals(_worker: int) -> None:
    """A terminal's Ctrl-C and a scheduler's SIGTERM reach every process; the one that trains decides when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _unchanged(batch: Any) -> Any:
    return batch


def _hashes(examples: Mapping[str, Dataset]) -> dict[str, str]:
    """One hash a split, of what each example holds, its label, its slices and what else it is trained with."""
    return {
        split: content_hash(
            *_facts(table), *(table[name][:] for name in (WEIGHT, LOGPROBS) if name in table.column_names)
        )
        for split, table in examples.items()
    }


def _facts(table: Dataset) -> list[list[Any]]:
    slices = sorted(name for name in table.column_names if name.startswith(slice_column("")))
    return [table[name][:] for name in ("content", "label", *slices)]


def _item_hashes(table: Dataset) -> list[str]:
    return [content_hash(*facts)[:ITEM_DIGITS] for facts in zip(*_facts(table), strict=True)]


def _labelled(table: Dataset) -> Dataset:
    labelled = select(table, (label != IGNORE for label in table["label"][:]))
    if not len(labelled):
        problem = "no training example has a gold label, and every term of this loss needs one."
        raise UserError("loss.term", "ce", problem, "Add a term that follows the teacher (loss=kd), or give labels.")
    return labelled


def _first(table: Dataset, num_examples: int) -> Dataset:
    return table.select(range(min(num_examples, len(table))))


def _readable(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "\n".join(each if isinstance(each, str) else f"{each['role']}: {each['content']}" for each in value)
