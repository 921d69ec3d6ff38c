"""Directions and distances, with gradients where the textbook formula has none."""

# N rows, D width

from __future__ import annotations

import torch
from torch import Tensor

# Added to squared lengths, inside the square root: there the gradient of a length 0 is 0 / 0.
DISTANCE_EPS = 1e-12  # duplicates are 1e-6 apart, and pull at no more than 1e6 times the gradient of their direction
UNIT_EPS = 1e-24  # a vector shorter than 1e-12 keeps no direction, as in torch's normalize


def unit(vectors: Tensor, *, eps: float = UNIT_EPS) -> Tensor:
    """Vectors `[..., D]` at length 1: x / sqrt(sum_d x_d^2 + eps); a zero vector stays zero."""
    return vectors / (vectors.square().sum(dim=-1, keepdim=True) + eps).sqrt()


def distances(rows_ND: Tensor) -> Tensor:
    """Euclidean distances of every row to every other, `[N, N - 1]`, each sqrt(sum_d (x_id - x_jd)^2 + eps).
    With eps the ratio of two distances exists, and has a gradient, even where all rows are equal.
    """
    return (off_diagonal(exact_distances(rows_ND, rows_ND)).square() + DISTANCE_EPS).sqrt()


def exact_distances(one_ND: Tensor, other_ND: Tensor) -> Tensor:
    """Euclidean distances `[N, N]` of the rows of one to those of the other, with gradient 0 where they are equal.

    From differences, not from inner products, whose cancellation in float32 hides the distance of near neighbours.
    """
    return torch.cdist(one_ND, other_ND, compute_mode="donot_use_mm_for_euclid_dist")


def off_diagonal(pairs_NN: Tensor) -> Tensor:
    """What row i has with every other row, in order, `[N, N - 1]`; N >= 1."""
    num_rows = len(pairs_NN)
    return pairs_NN.flatten()[1:].view(num_rows - 1, num_rows + 1)[:, :-1].reshape(num_rows, num_rows - 1)


def flat(rows: Tensor) -> Tensor:
    """Each row's features as one vector: `[N, ...]` as `[N, D]`."""
    return rows.flatten(start_dim=1)
