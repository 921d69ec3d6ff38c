"""How the rows of an example are stored: exactly, as their most probable classes, or as classes drawn from each."""

# N rows, C classes, K known classes of a row, T known classes of all rows

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from potstill.losses.distributions import log_softmax
from potstill.losses.sparse import SparseLogits
from potstill.signals.packing import from_levels, ids_bytes, pack_ids, to_levels, unpack_ids

Layout = dict[str, Any]
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.bfloat16, torch.float16)}


class Stored(NamedTuple):
    """Rows of an example as bytes."""

    data: bytes | memoryview
    num_rows: int


class Encoded(NamedTuple):
    """mass: the sum over the rows of the probability that was kept of each; 1 a row where nothing is lost."""

    data: bytes
    mass: float


class Codec(Protocol):
    """layout: what has to be known beside the bytes to read them."""

    def layout(self, rows: Tensor) -> Layout: ...

    def bytes_per_row(self, layout: Layout) -> float: ...

    def encode(self, rows: Tensor, sizes: Sequence[int], seeds: Sequence[int]) -> list[Encoded]:
        """The rows of several examples, of so many rows each. seeds: of what is drawn for each."""
        ...

    def decode(self, stored: Sequence[Stored], layout: Layout) -> Tensor | SparseLogits:
        """The rows of several examples, one after another."""
        ...

    def describe(self) -> dict[str, Any]:
        """All that decides what is stored."""
        ...


@dataclass(frozen=True)
class Exact:
    """All numbers. dtype: a key of DTYPES to round them to; None: as the model gives them."""

    dtype: str | None = None

    def layout(self, rows: Tensor) -> Layout:
        given = str(rows.dtype).removeprefix("torch.")
        return {"dtype": self.dtype or given, "shape": list(rows.shape[1:]), "given": given}

    def bytes_per_row(self, layout: Layout) -> float:
        return DTYPES[layout["dtype"]].itemsize * math.prod(layout["shape"])

    def encode(self, rows: Tensor, sizes: Sequence[int], seeds: Sequence[int]) -> list[Encoded]:  # noqa: ARG002
        kept = (rows if self.dtype is None else rows.to(DTYPES[self.dtype])).cpu().contiguous()
        return [Encoded(_bytes_of(each), float(len(each))) for each in kept.split(list(sizes))]

    def decode(self, stored: Sequence[Stored], layout: Layout) -> Tensor:
        flat = np.concatenate([np.frombuffer(each.data, np.uint8) for each in stored])
        rows = torch.from_numpy(flat).view(DTYPES[layout["dtype"]]).view(-1, *layout["shape"])
        return rows.to(DTYPES[layout["given"]])

    def describe(self) -> dict[str, Any]:
        return {"form": "exact", **asdict(self)}


@dataclass(frozen=True)
class TopK:
    """The most probable classes, with their log-probabilities at temperature 1.

    top_k: how many of a row at most. top_p: the fewest that together have this probability; 1.0: all of them.
    values: `float16`, or `uint8` (`packing.to_levels`).
    """

    top_k: int
    top_p: float = 1.0
    values: str = "float16"

    def layout(self, rows: Tensor) -> Layout:
        return {"vocabulary_size": rows.shape[-1]}

    def bytes_per_row(self, layout: Layout) -> float:
        """With a top-p: of a row that has top_k classes."""
        counts = 2 if self.top_p < 1.0 else 0
        return counts + ids_bytes(self.top_k, layout["vocabulary_size"]) + self.top_k * np.dtype(self.values).itemsize

    def encode(self, rows: Tensor, sizes: Sequence[int], seeds: Sequence[int]) -> list[Encoded]:  # noqa: ARG002
        found = log_softmax(rows, 1.0).topk(self.top_k, dim=-1)
        log_p, ids = (each.cpu().split(list(sizes)) for each in found)
        return [self._packed(*each, rows.shape[-1]) for each in zip(log_p, ids, strict=True)]

    def decode(self, stored: Sequence[Stored], layout: Layout) -> SparseLogits:
        return _joined([self._unpacked(each, layout["vocabulary_size"]) for each in stored])

    def describe(self) -> dict[str, Any]:
        return {"form": "top_k", **asdict(self)}

    def _packed(self, log_p_NK: Tensor, ids_NK: Tensor, vocabulary_size: int) -> Encoded:
        p_NK = log_p_NK.double().exp()
        kept_NK = p_NK.cumsum(dim=-1) - p_NK < self.top_p if self.top_p < 1.0 else torch.ones_like(p_NK).bool()
        counts = _packed_counts(kept_NK) if self.top_p < 1.0 else b""
        values_T = log_p_NK[kept_NK].numpy()
        values = to_levels(values_T) if self.values == "uint8" else values_T.astype("<f2")
        packed = pack_ids(ids_NK[kept_NK].numpy(), vocabulary_size)
        return Encoded(counts + packed + values.tobytes(), float(p_NK[kept_NK].sum()))

    def _unpacked(self, stored: Stored, vocabulary_size: int) -> Known:
        counts_N, body = _unpacked_counts(stored) if self.top_p < 1.0 else (None, memoryview(stored.data))
        num_ids = self.top_k * stored.num_rows if counts_N is None else int(counts_N.sum())
        values = body[ids_bytes(num_ids, vocabulary_size) :]
        is_coarse = self.values == "uint8"
        values_T = from_levels(np.frombuffer(values, np.uint8)) if is_coarse else np.frombuffer(values, "<f2")
        return _in_rows(unpack_ids(body, num_ids, vocabulary_size), values_T, counts_N, stored.num_rows)


@dataclass(frozen=True)
class Sampled:
    """Classes drawn from each row's distribution, and how often: an estimate without bias of all probabilities.

    draws: of a row, with replacement. Source: Anshumann et al. 2025, arXiv:2503.16870, at proposal temperature 1.
    """

    draws: int = 12

    def layout(self, rows: Tensor) -> Layout:
        return {"vocabulary_size": rows.shape[-1]}

    def bytes_per_row(self, layout: Layout) -> float:
        """Of a row in which no class was drawn twice."""
        return 2 + ids_bytes(self.draws, layout["vocabulary_size"]) + self.draws

    def encode(self, rows: Tensor, sizes: Sequence[int], seeds: Sequence[int]) -> list[Encoded]:
        p = log_softmax(rows, 1.0).exp().cpu().split(list(sizes))  # drawn on the CPU: everywhere the same
        return [self._packed(*each) for each in zip(p, seeds, strict=True)]

    def decode(self, stored: Sequence[Stored], layout: Layout) -> SparseLogits:
        joined = _joined([self._unpacked(each, layout["vocabulary_size"]) for each in stored])
        return SparseLogits(joined.log_p, joined.ids, is_sampled=True)

    def describe(self) -> dict[str, Any]:
        return {"form": "sampled", **asdict(self)}

    def _packed(self, p_NC: Tensor, seed: int) -> Encoded:
        generator = torch.Generator().manual_seed(seed)
        drawn_NS = torch.multinomial(p_NC, self.draws, replacement=True, generator=generator).sort(dim=-1).values
        first_NS = torch.ones_like(drawn_NS, dtype=torch.bool)  # of those that are equal
        first_NS[:, 1:] = drawn_NS[:, 1:] != drawn_NS[:, :-1]
        starts_T = first_NS.flatten().nonzero().flatten()
        times_T = torch.diff(starts_T, append=starts_T.new_tensor([drawn_NS.numel()]))
        mass = float(p_NC.gather(-1, drawn_NS)[first_NS].double().sum())
        ids = pack_ids(drawn_NS[first_NS].numpy(), p_NC.shape[-1])
        return Encoded(_packed_counts(first_NS) + ids + times_T.numpy().astype(np.uint8).tobytes(), mass)

    def _unpacked(self, stored: Stored, vocabulary_size: int) -> Known:
        counts_N, body = _unpacked_counts(stored)
        num_ids = int(counts_N.sum())
        times_T = np.frombuffer(body[ids_bytes(num_ids, vocabulary_size) :], np.uint8)
        log_p_T = np.log(times_T.astype(np.float32) / self.draws)
        return _in_rows(unpack_ids(body, num_ids, vocabulary_size), log_p_T, counts_N, stored.num_rows)


class Known(NamedTuple):
    ids: np.ndarray
    log_p: np.ndarray


def _bytes_of(rows: Tensor) -> bytes:
    return rows.flatten().view(torch.uint8).numpy().tobytes()


def _packed_counts(kept_NK: Tensor) -> bytes:
    return kept_NK.sum(dim=-1).numpy().astype("<u2").tobytes()


def _unpacked_counts(stored: Stored) -> tuple[np.ndarray, memoryview]:
    return np.frombuffer(stored.data, "<u2", stored.num_rows), memoryview(stored.data)[2 * stored.num_rows :]


def _in_rows(ids_T: np.ndarray, log_p_T: np.ndarray, counts_N: np.ndarray | None, num_rows: int) -> Known:
    """Rows of one length. What a shorter one lacks is its first class once more, with no probability."""
    if counts_N is None:
        width = len(ids_T) // num_rows if num_rows else 1
        return Known(ids_T.reshape(num_rows, width), log_p_T.reshape(num_rows, width))
    known_NK = np.arange(counts_N.max(initial=1)) < counts_N[:, None]
    starts_N = np.cumsum(counts_N, dtype=np.int64) - counts_N
    ids_NK = np.repeat(ids_T[starts_N][:, None], known_NK.shape[1], axis=1)
    log_p_NK = np.full(known_NK.shape, -np.inf, log_p_T.dtype)
    ids_NK[known_NK], log_p_NK[known_NK] = ids_T, log_p_T
    return Known(ids_NK, log_p_NK)


def _joined(examples: Sequence[Known]) -> SparseLogits:
    width = max(each.ids.shape[1] for each in examples)
    ids = np.concatenate([_wide(each.ids, width, each.ids[:, :1]) for each in examples])
    log_p = np.concatenate([_wide(each.log_p, width, -np.inf) for each in examples])
    return SparseLogits(torch.from_numpy(log_p), torch.from_numpy(ids))


def _wide(rows_NK: np.ndarray, width: int, filling: Any) -> np.ndarray:
    missing = width - rows_NK.shape[1]
    if not missing:
        return rows_NK
    more = np.broadcast_to(np.asarray(filling, rows_NK.dtype), (len(rows_NK), missing))
    return np.concatenate([rows_NK, more], axis=1)
