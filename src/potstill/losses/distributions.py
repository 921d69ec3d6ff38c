"""Arithmetic that the divergences share, on log-probabilities. No policy here: which way round, which temperature."""

# N rows, C classes (or vocabulary, or buckets of it); p and q any two distributions

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from potstill.losses.precision import upcast


def log_softmax(logits_NC: Tensor, temperature: float | Tensor) -> Tensor:
    """log softmax(logits / temperature), in float32 or better."""
    return F.log_softmax(upcast(logits_NC) / temperature, dim=-1)


def scale(temperature: float | Tensor, t2_scaling: bool) -> float | Tensor:
    """What undoes the 1/T^2 by which a temperature shrinks the gradient of a KL."""
    return temperature**2 if t2_scaling else 1.0


def log_mixture(logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """log sum_i weight_i softmax(logits_i), `[N, C]`, for weights that sum to 1: logits of the mixture."""
    parts = [log_softmax(each, 1.0) + math.log(weight) for each, weight in zip(logits, weights, strict=True)]
    return torch.stack(parts).logsumexp(dim=0)


def kl(log_p_NC: Tensor, log_q_NC: Tensor) -> Tensor:
    """sum_c p_nc (log p_nc - log q_nc), `[N]`: KL(p || q) in nats."""
    return (log_p_NC.exp() * (log_p_NC - log_q_NC)).sum(dim=-1)


def kl_to_mixture(log_p_NC: Tensor, log_q_NC: Tensor, weight: float) -> Tensor:
    """KL(p || weight p + (1 - weight) q), `[N]`, in nats, for `weight` in (0, 1); at most -log(weight).

    Of the mixture only its ratio to p is formed, log(weight + (1 - weight) q/p): exact where the models agree, finite
    where p or q is 0. Mixing log-probabilities first would leave their rounding, which grows with their size, in every
    row's sum.
    """
    log_ratio_NC = log_q_NC - log_p_NC
    log_weight = log_ratio_NC.new_tensor(math.log(weight))
    return -(log_p_NC.exp() * torch.logaddexp(log_weight, log_ratio_NC + math.log1p(-weight))).sum(dim=-1)


def skewed_kl(log_p_NC: Tensor, log_q_NC: Tensor, skew: float) -> Tensor:
    """KL(p || skew p + (1 - skew) q), `[N]`, in nats, for `skew` in [0, 1); at 0, KL(p || q)."""
    return kl(log_p_NC, log_q_NC) if skew == 0.0 else kl_to_mixture(log_p_NC, log_q_NC, skew)


def jensen_shannon(log_p_NC: Tensor, log_q_NC: Tensor, beta: float) -> Tensor:
    """beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q, `[N]`, in nats; its ends are the two KLs."""
    if beta == 0.0:
        return kl(log_p_NC, log_q_NC)
    if beta == 1.0:
        return kl(log_q_NC, log_p_NC)
    p_to_m_N = kl_to_mixture(log_p_NC, log_q_NC, beta)
    q_to_m_N = kl_to_mixture(log_q_NC, log_p_NC, 1.0 - beta)
    return beta * p_to_m_N + (1.0 - beta) * q_to_m_N
