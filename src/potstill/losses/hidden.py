"""Losses on hidden states of the same width."""

# P rows: attended positions `[P, D]`, or images `[P, ...]`; D width

from __future__ import annotations

from torch import Tensor

from potstill.losses.precision import upcast


def hidden_mse(student_PD: Tensor, teacher_PD: Tensor) -> Tensor:
    """Mean squared difference of two hidden states, one value a row, `[P]`, in squared units of the hidden state.

    d_p = 1/D * sum_d (student_pd - teacher_pd)^2

    Rows are attended positions `[P, D]`, or images `[P, ...]`, whose elements are all averaged. The mean over the width
    makes the weight of the term independent of the model's size. Both must have the same shape.

    Source: Romero et al. 2014 (FitNets), section 2.2, arXiv:1412.6550, with half the sum over the width there; Jiao et
    al. 2019 (TinyBERT), section 3.1, arXiv:1909.10351. Agrees with TextBrewer's `hid_mse_loss`. Differs: TinyBERT's
    code, which also averages over padding.
    """
    assert student_PD.shape == teacher_PD.shape, (student_PD.shape, teacher_PD.shape)
    return (upcast(student_PD) - upcast(teacher_PD)).square().flatten(start_dim=1).mean(dim=1)
