"""Where the layers of a model are, as data: the module paths that a term stands by when it is told layers by number."""

# D width

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Queries, keys or values of one layer: what the module at `path` gives, or the one of its equal parts that is."""

    path: str
    index: int = 0
    num_parts: int = 1

    def of(self, hidden: Mapping[str, Tensor]) -> Tensor:
        """`[..., D]` of the taps of a model."""
        return hidden[self.path].chunk(self.num_parts, dim=-1)[self.index]


@dataclass(frozen=True)
class Layers:
    """A model of L layers, for terms that ask for them by number, from 0.

    architecture: for messages. embeddings: module path of what the first layer gets. outputs: path of each layer, L.
    attention: `queries`, `keys` and `values` of each layer, L; none where they are not known.
    num_heads: of queries. has_plain_scores: attention is softmax(q.k / sqrt(width of a head)) to both sides, and no
        more: no rotation, no relative positions, no causal mask.
    """

    architecture: str
    embeddings: str
    outputs: tuple[str, ...]
    attention: tuple[Mapping[str, Part], ...] = ()
    num_heads: int = 0
    has_plain_scores: bool = False
