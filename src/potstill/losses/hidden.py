"""Losses on hidden states of the same width, or on embeddings."""

# P rows: attended positions `[P, D]`, or images `[P, ...]`; B batch, L length, D width

from __future__ import annotations

import torch
from torch import Tensor

from potstill.losses.geometry import DISTANCE_EPS, flat, unit
from potstill.losses.precision import upcast

POOLINGS = ("first", "mean", "last")


def hidden_mse(student_PD: Tensor, teacher_PD: Tensor) -> Tensor:
    """Mean squared difference of two hidden states, one value a row, `[P]`, in squared units of the hidden state.

    d_p = 1/D * sum_d (student_pd - teacher_pd)^2

    Rows are attended positions `[P, D]`, or images `[P, ...]`, whose elements are all averaged. The mean over the width
    makes the weight of the term independent of the model's size. Both must have the same shape.

    Source: Romero et al. 2014 (FitNets), section 2.2, arXiv:1412.6550, with half the sum over the width there; Jiao et
    al. 2019 (TinyBERT), section 3.1, arXiv:1909.10351, which takes it of embeddings as well. On pooled embeddings, it
    is Reimers and Gurevych 2020, section 2, arXiv:2004.09813. Agrees with TextBrewer's `hid_mse_loss`. Differs:
    TinyBERT's code, which also averages over padding.
    """
    return flat(_difference(upcast(student_PD), upcast(teacher_PD)).square()).mean(dim=1)


def hidden_cosine(student_PD: Tensor, teacher_PD: Tensor) -> Tensor:
    """1 - cosine of two hidden states along their last dimension, one value a row, `[P]`, from 0 to 2.

    d_p = 1 - s.t / (|s| |t|) = 1/2 |s/|s| - t/|t||^2

    The second form is computed: it is never below 0, and exactly 0 where the directions agree. Rows that are images
    `[P, L, D]` are averaged over L. A zero vector has no direction: it is at 1/2 of every other.

    Source: Sanh et al. 2019 (DistilBERT), section 2, arXiv:1910.01108. Agrees with torch's CosineEmbeddingLoss at
    target 1.
    """
    return patient(student_PD, teacher_PD) * (0.5 * student_PD.shape[-1])


def patient(student_PD: Tensor, teacher_PD: Tensor) -> Tensor:
    """Mean squared difference of hidden states at length 1, one value a row, `[P]`, from 0 to 4 / D.

    d_p = 1/D * sum_d (s_d / |s| - t_d / |t|)^2

    `[P, D]` is one summary of an example, its first position in the paper (`pool`); `[P, M, D]` has M layers, each at
    length 1, which are averaged (`layer_maps` says which).

    Source: Sun et al. 2019 (Patient KD), section 3, arXiv:1908.09355, with the sum over the width there.
    Agrees with the authors' code. Differs: TextBrewer, times D.
    """
    return hidden_mse(unit(upcast(student_PD)), unit(upcast(teacher_PD)))


def embedding_l2(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """Euclidean distance of two embeddings, one value a row, `[N]`, in units of the embedding.

    d_n = sqrt(sum_d (s_nd - t_nd)^2 + eps) - sqrt(eps), eps = 1e-12: 0, and with gradient 0, where they agree

    Unlike a squared distance it pulls as hard on a row that is nearly right as on one that is far off.

    Source: the square root of what Reimers and Gurevych 2020, section 2, arXiv:2004.09813, have; no paper of its own.
    """
    squared_N = flat(_difference(upcast(student_ND), upcast(teacher_ND)).square()).sum(dim=1)
    return (squared_N + DISTANCE_EPS).sqrt() - DISTANCE_EPS**0.5


def pool(hidden_BLD: Tensor, mask_BL: Tensor, how: str) -> Tensor:
    """One vector an example, `[B, D]`, of its attended positions: the `first`, their `mean`, or the `last`.

    Every example needs an attended position. ValueError where `how` is none of them.
    """
    mask_BL = mask_BL.to(torch.bool)
    if how == "mean":
        weights_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLD.dtype)
        return (hidden_BLD * weights_BL1).sum(dim=1) / weights_BL1.sum(dim=1)
    if how == "first":
        position_B = mask_BL.int().argmax(dim=1)
    elif how == "last":
        position_B = mask_BL.shape[1] - 1 - mask_BL.int().flip(1).argmax(dim=1)
    else:
        raise ValueError(f"'{how}' is no pooling; choose one of {', '.join(POOLINGS)}")
    return hidden_BLD[torch.arange(mask_BL.shape[0], device=hidden_BLD.device), position_B]


def _difference(student: Tensor, teacher: Tensor) -> Tensor:
    assert student.shape == teacher.shape, (student.shape, teacher.shape)
    return student - teacher
