"""Which examples make up each global batch, and each rank's share of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from potstill.data.batch import Batch
from potstill.data.encoders import Encoder
from potstill.data.pairs import joined, partners

POOL_BATCHES = 50  # length grouping: batches whose examples are sorted together; more pads less and shuffles less


class GlobalBatches(Sampler[list[Any]]):
    """Indices of this rank's share of each global batch; every example once an epoch, the last batch may be short.

    A rank whose share of a short batch is empty gets an empty list: all ranks see the same number of batches.
    Without a seed the order is that of the data. With one, it is shuffled anew for every epoch, by (seed, epoch) alone:
    the number of batches seen says where to go on.
    lengths: group examples of like length; in tokens, one an example.
    labels: yield pairs of indices, each with a partner of its label (`pairs.partners`); one label an example.
    """

    def __init__(
        self,
        num_examples: int,
        batch_size: int,
        *,
        rank: int,
        world_size: int,
        seed: int | None = None,
        lengths: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> None:
        self.num_examples, self.batch_size = num_examples, batch_size
        self.rank, self.world_size = rank, world_size
        self.seed, self.lengths, self.labels = seed, lengths, labels
        self.epoch = 0
        self._first = (0, 0)  # epoch and batch within it

    def go_on_after(self, num_batches: int) -> None:
        """Begin, once, with the batch that follows the first `num_batches` of a training."""
        self._first = divmod(num_batches, len(self))
        self.epoch = self._first[0]

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[list[Any]]:
        epoch, num_seen = self._first
        batches = self._global_batches()[num_seen if self.epoch == epoch else 0 :]
        partner_N = None if self.labels is None else partners(self.labels, self.seed or 0, self.epoch)
        for batch in batches:
            share = batch[self.rank :: self.world_size]
            yield (share if partner_N is None else np.stack([share, partner_N[share]], axis=1)).tolist()

    def _global_batches(self) -> list[np.ndarray]:
        if self.seed is None:
            return self._cut(np.arange(self.num_examples))
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(self.num_examples)
        return self._cut(order) if self.lengths is None else self._grouped(order, self.lengths, generator)

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def _grouped(self, order: np.ndarray, lengths: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        pool_size = POOL_BATCHES * self.batch_size
        pools = [order[start : start + pool_size] for start in range(0, len(order), pool_size)]
        batches = self._cut(np.concatenate([pool[np.argsort(-lengths[pool], kind="stable")] for pool in pools]))
        return [batches[index] for index in generator.permutation(len(batches))]


class BatchView(TorchDataset[Batch]):
    """A table whose item is a batch: `view[[3, 1, 4]]`.

    route_column, weight_column: of the table, what becomes a batch's `routes` and `weights`.
    """

    def __init__(
        self, table: Dataset, encoder: Encoder, route_column: str | None = None, weight_column: str | None = None
    ) -> None:
        columns = [*encoder.columns, *(name for name in (route_column, weight_column) if name)]
        self.table, self.encoder = table.select_columns(columns), encoder
        self.route_column, self.weight_column = route_column, weight_column

    def __getitem__(self, indices: list[int]) -> Batch:
        if not indices:
            return self[[0]].empty()
        return self._collated(self.table.__getitems__(indices), indices)

    def _collated(self, rows: list[dict[str, Any]], numbers: list[int]) -> Batch:
        routes = tuple(row[self.route_column] for row in rows) if self.route_column else ()
        weights = torch.tensor([row[self.weight_column] for row in rows]) if self.weight_column else None
        return replace(self.encoder.collate(rows), numbers=torch.tensor(numbers), routes=routes, weights=weights)


class PairView(BatchView):
    """A table of single texts whose item is a batch of pairs: `view[[[3, 1], [4, 1]]]`. What the first has counts."""

    def __getitem__(self, indices: list[list[int]]) -> Batch:  # type: ignore[override]
        if not indices:
            return self[[[0, 0]]].empty()
        rows = iter(self.table.__getitems__([index for pair in indices for index in pair]))
        return self._collated([joined(*pair) for pair in zip(rows, rows, strict=True)], [first for first, _ in indices])
