"""Losses on where a model looks: activation maps of images, attention and relations of tokens."""

# P attended positions of the batch, in order; B batch, A heads, L length, S places, C channels, D width, K keys

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from potstill.losses.geometry import unit
from potstill.losses.precision import upcast


def attention_transfer(
    student_BSC: Tensor, teacher_BSC: Tensor, *, power: float = 2.0, mask_BS: Tensor | None = None
) -> Tensor:
    """Mean squared difference of activation maps at length 1, one value an example, `[B]`, from 0 to 2 / S.

    d_b = 1/S * sum_s (m_bs - n_bs)^2,  m_b = a_b / |a_b|,  a_bs = 1/C * sum_c |student_bsc|^power,  n of the teacher

    Places S are pixels or tokens, channels C last; the numbers of channels may differ. Only places in `mask_BS` exist,
    and S counts them. `power` >= 1; 2 is the paper's choice.

    Source: Zagoruyko and Komodakis 2016, section 3.1, arXiv:1612.03928. Agrees with the authors' code, RepDistiller and
    mdistiller, which square and average. Differs: the paper's equation 2, which has the norm itself, as torchdistill
    with mode=paper.
    """
    student_BS, teacher_BS = (_activation(features, power, mask_BS) for features in (student_BSC, teacher_BSC))
    squared_B = (student_BS - teacher_BS).square().sum(dim=1)
    return squared_B / (student_BS.shape[1] if mask_BS is None else mask_BS.sum(dim=1))


def nst(student_BSC: Tensor, teacher_BSC: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of channels' maps, one value an example, `[B]`, from 0 to 2.

    d_b = mean over c, c' of k(s_c, s_c') + k(t_c, t_c') - 2 k(s_c, t_c'),  k(x, y) = (x.y)^2, maps at length 1

    s_c is channel c's map over the places S, which must be as many; the numbers of channels may differ. The squared
    norm of the difference of the mean outer products of the maps, computed from products of channels: in float32 it
    carries their rounding, about 1e-7.

    Source: Huang and Wang 2017, section 4, arXiv:1707.01219, with the polynomial kernel of degree 2. Agrees with
    RepDistiller and mdistiller, where the maps are of one size; they shrink the larger of two sizes.
    """
    student_BCS, teacher_BCS = (unit(upcast(features).transpose(1, 2)) for features in (student_BSC, teacher_BSC))
    own = _similarity(student_BCS, student_BCS) + _similarity(teacher_BCS, teacher_BCS)
    return own - 2.0 * _similarity(student_BCS, teacher_BCS)


def attention_score_mse(student_BALL: Tensor, teacher_BALL: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean squared difference of attention scores before the softmax, one value a pair of attended positions.

    d_bij = 1/A * sum_a (student_baij - teacher_baij)^2, for the attended queries i and keys j of example b

    `[sum over b of (positions of b)^2]`, in order. Both models need the same number of heads. Scores must be taken
    before the padding's -inf, or large negative number, is added; those of padding are left out.

    Source: Jiao et al. 2019 (TinyBERT), section 3.1, arXiv:1909.10351. Agrees with TextBrewer's `att_mse_loss` with a
    mask. Differs: TinyBERT's code, which sets scores of padding to 0 and averages over them too.
    """
    assert student_BALL.shape == teacher_BALL.shape, (student_BALL.shape, teacher_BALL.shape)
    mask_BL = mask_BL.to(torch.bool)
    squared_BLLA = (upcast(student_BALL) - upcast(teacher_BALL)).square().permute(0, 2, 3, 1)
    return squared_BLLA[mask_BL.unsqueeze(2) & mask_BL.unsqueeze(1)].mean(dim=-1)


def mean_over_keys(values: Tensor, mask_BL: Tensor) -> Tensor:
    """The mean over keys of one value a pair of attended positions (`attention_score_mse`): one a query, `[P]`."""
    num_keys_P = mask_BL.sum(dim=1).repeat_interleave(mask_BL.sum(dim=1))
    query = torch.arange(len(num_keys_P), device=values.device).repeat_interleave(num_keys_P)
    return values.new_zeros(len(num_keys_P)).index_add(0, query, values) / num_keys_P


def masked_kl(student_K: Tensor, teacher_K: Tensor, mask_K: Tensor) -> Tensor:
    """KL(teacher || student) of softmax distributions over the last dimension, in nats: `[..., K]` gives `[...]`.

    d = sum_k p_k (log p_k - log q_k),  p = softmax(teacher), q = softmax(student), over the k in `mask_K` alone

    Scores outside the mask are set to -inf; what they were has no influence. Every distribution needs one inside.
    """
    log_p_K, log_q_K = (_log_softmax_within(scores, mask_K) for scores in (teacher_K, student_K))
    difference_K = torch.where(mask_K, log_p_K - log_q_K, 0.0)  # outside, -inf less -inf
    return (log_p_K.exp() * difference_K).sum(dim=-1)


def attention_kl(student_BALL: Tensor, teacher_BALL: Tensor, mask_BL: Tensor) -> Tensor:
    """KL(teacher || student) of attention distributions, one value an attended position, `[P]`, in nats.

    d_p = 1/A * sum_a KL(softmax_j teacher_apj || softmax_j student_apj), over the attended keys j of p's example

    Takes scores before the softmax, or log-probabilities, of attention to both sides (a causal mask's -inf among
    attended keys gives NaN). Both models need the same number of heads. Keys of padding are masked with -inf, queries
    of padding left out: padding changes nothing.

    Source: Wang et al. 2020 (MiniLM), section 3.1, arXiv:2002.10957, of the last layer. The mean over heads and
    positions is the paper's.
    """
    assert student_BALL.shape == teacher_BALL.shape, (student_BALL.shape, teacher_BALL.shape)
    mask_BL = mask_BL.to(torch.bool)
    student_PAL, teacher_PAL = (scores.transpose(1, 2)[mask_BL] for scores in (student_BALL, teacher_BALL))
    keys_PL = mask_BL.repeat_interleave(mask_BL.sum(dim=1), dim=0)
    return masked_kl(student_PAL, teacher_PAL, keys_PL.unsqueeze(1)).mean(dim=1)


def attention_scores(queries_BLD: Tensor, keys_BLD: Tensor, num_heads: int) -> Tensor:
    """Scaled products of all pairs of positions, `[B, A, L, L]`, of A = `num_heads` heads of width D / A.

    r_baij = q_bai . k_baj / sqrt(D / A): the width is split into heads, never the tokens

    Of a layer's queries and keys, with the model's own heads: its scores before mask and softmax, where the
    architecture adds nothing to them. ValueError where `num_heads` does not divide the width.
    """
    width = queries_BLD.shape[-1]
    if num_heads < 1 or width % num_heads:
        raise ValueError(f"a width of {width} cannot be split into {num_heads} heads")
    head_width = width // num_heads
    queries_BALD, keys_BALD = (
        upcast(states).unflatten(-1, (num_heads, head_width)).transpose(1, 2) for states in (queries_BLD, keys_BLD)
    )
    return queries_BALD @ keys_BALD.transpose(-1, -2) / math.sqrt(head_width)


def relation_scores(states_BLD: Tensor, num_heads: int) -> Tensor:
    """Scaled products of all pairs of positions of the same states, `[B, A, L, L]`: `attention_scores` with itself.

    Relation heads need not be the model's own: two models of different widths and heads are compared in the same
    number.
    """
    return attention_scores(states_BLD, states_BLD, num_heads)


def relation_kl(student_BLD: Tensor, teacher_BLD: Tensor, mask_BL: Tensor, *, num_heads: int) -> Tensor:
    """KL(teacher || student) of the relations of positions, one value an attended position, `[P]`, in nats.

    d_p = 1/A * sum_a KL(softmax_j r_apj(teacher) || softmax_j r_apj(student)),  r = `relation_scores`

    States are queries, keys or values of one layer with all heads side by side; widths may differ. Padding as in
    `attention_kl`.

    Source: Wang et al. 2020 (MiniLM), section 3.2, arXiv:2002.10957, of values; Wang et al. 2020 (MiniLMv2), section
    3.1, arXiv:2012.15828, of queries, keys and values. No public code of the authors exists.
    """
    return attention_kl(relation_scores(student_BLD, num_heads), relation_scores(teacher_BLD, num_heads), mask_BL)


def minilm(
    student_scores_BALL: Tensor,
    teacher_scores_BALL: Tensor,
    student_values_BLD: Tensor,
    teacher_values_BLD: Tensor,
    mask_BL: Tensor,
) -> Tensor:
    """Attention and value relation of the last layer (MiniLM), one value an attended position, `[P]`, in nats.

    d_p = attention_kl of the scores + relation_kl of the values, in as many heads as the attention has

    Source: Wang et al. 2020, sections 3.1 and 3.2, arXiv:2002.10957.
    """
    attention_P = attention_kl(student_scores_BALL, teacher_scores_BALL, mask_BL)
    num_heads = teacher_scores_BALL.shape[1]
    return attention_P + relation_kl(student_values_BLD, teacher_values_BLD, mask_BL, num_heads=num_heads)


def minilm_v2(student: Sequence[Tensor], teacher: Sequence[Tensor], mask_BL: Tensor, *, num_heads: int) -> Tensor:
    """Sum of self-relations (MiniLMv2), one value an attended position, `[P]`, in nats.

    d_p = sum over the given states of relation_kl: queries, keys and values of the student's last and of one teacher
    layer, `[B, L, D]` each, in this order; each weighs 1

    With `num_heads` (48 or 64 in the paper) above the teacher's own, relations are finer than its attention.

    Source: Wang et al. 2020, section 3.1, arXiv:2012.15828, which takes an upper middle layer of a large teacher.
    """
    pairs = zip(student, teacher, strict=True)
    return torch.stack([relation_kl(*pair, mask_BL, num_heads=num_heads) for pair in pairs]).sum(dim=0)


def _activation(features_BSC: Tensor, power: float, mask_BS: Tensor | None) -> Tensor:
    map_BS = upcast(features_BSC).abs().pow(power).mean(dim=2)
    return unit(map_BS if mask_BS is None else map_BS * mask_BS)


def _similarity(one_BCS: Tensor, other_BCS: Tensor) -> Tensor:
    return (one_BCS @ other_BCS.transpose(1, 2)).square().mean(dim=(1, 2))


def _log_softmax_within(scores_K: Tensor, mask_K: Tensor) -> Tensor:
    return upcast(scores_K).masked_fill(~mask_K, -torch.inf).log_softmax(dim=-1)
