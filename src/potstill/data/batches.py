"""Which examples make up each global batch, and each rank's share of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from potstill.data.batch import Batch
from potstill.data.encoders import Encoder

POOL_BATCHES = 50  # length grouping: batches whose examples are sorted together; more pads less and shuffles less


class GlobalBatches(Sampler[list[int]]):
    """Indices of this rank's share of each global batch; every example once an epoch, the last batch may be short.

    A rank whose share of a short batch is empty gets an empty list: all ranks see the same number of batches.
    Without a seed the order is that of the data. With one, it is shuffled anew for every epoch, by (seed, epoch) alone.
    lengths: group examples of like length; in tokens, one an example.
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
    ) -> None:
        self.num_examples, self.batch_size = num_examples, batch_size
        self.rank, self.world_size = rank, world_size
        self.seed, self.lengths = seed, lengths
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at the start of each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._global_batches():
            yield batch[self.rank :: self.world_size].tolist()

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
    """A table whose item is a batch: `view[[3, 1, 4]]`."""

    def __init__(self, table: Dataset, encoder: Encoder) -> None:
        self.table, self.encoder = table.select_columns(list(encoder.columns)), encoder

    def __getitem__(self, indices: list[int]) -> Batch:
        if indices:
            return self.encoder.collate(self.table.__getitems__(indices))
        return self[[0]].empty()
