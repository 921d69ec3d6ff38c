"""TextBrewer: cross-entropy instead of KL, no T^2; losses of hidden states and scores leave padding out."""

# N rows, C classes, D width

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmarks.parity_cases.comparing import Case, Loss, by_overrides, examples, scores, states, theirs
from benchmarks.parity_cases.of_torchdistill import tapped
from potstill.losses.attention import attention_score_mse
from potstill.losses.hidden import patient

PEER = "textbrewer"


def function(name: str) -> Any:
    return getattr(theirs("textbrewer.losses"), name)


def of_logits(name: str, temperature: float) -> Loss:
    return lambda student, teacher, **_: function(name)(student, teacher, temperature)


def of_states(name: str) -> Loss:
    return lambda student_tap, teacher_tap, mask: function(name)(student_tap, teacher_tap, mask)


def first_positions(student_tap: Tensor, teacher_tap: Tensor, **_: Tensor) -> Tensor:
    return patient(student_tap[:, 0], teacher_tap[:, 0]).mean()


CE = ("loss/term=[forward_ce]", "loss.term.forward_ce.temperature=4.0")
MSE = ("loss/term=[logit_mse]", "loss.term.logit_mse.centre=false")
NO_PROJECTOR = "loss.term.{}.projector=none"

CASES = [
    Case(
        PEER,
        "kd_ce_loss temperature=4",
        examples,
        of_logits("kd_ce_loss", 4.0),
        "cross-entropy, not KL; no T^2",
        (*CE, "loss.term.forward_ce.t2_scaling=false"),
        differs=by_overrides(*CE),
    ),
    Case(
        PEER,
        "kd_mse_loss temperature=4",
        examples,
        of_logits("kd_mse_loss", 4.0),
        "mean over rows and classes of logits / T: a weight of 1 / T^2",
        (*MSE, "loss.term.logit_mse.weight=0.0625"),
        differs=by_overrides(*MSE),
    ),
    Case(
        PEER,
        "hid_mse_loss with a mask",
        states,
        of_states("hid_mse_loss"),
        "mean over attended positions and width",
        (*tapped("hidden_mse"), NO_PROJECTOR.format("hidden_mse")),
    ),
    Case(
        PEER,
        "cos_loss with a mask",
        states,
        of_states("cos_loss"),
        "1 - cosine, mean over attended positions",
        (*tapped("hidden_cosine"), NO_PROJECTOR.format("hidden_cosine")),
    ),
    Case(
        PEER,
        "pkd_loss",
        states,
        of_states("pkd_loss"),
        "first positions at length 1; the sum over the width, D times ours",
        function="hidden.patient of first positions, times D",
        ours=lambda student_tap, **given: student_tap.shape[-1] * first_positions(student_tap, **given),
        differs=first_positions,
    ),
    Case(
        PEER,
        "att_mse_loss with a mask",
        scores,
        lambda student, teacher, mask: function("att_mse_loss")(student, teacher, mask),
        "mean over heads and attended pairs; without a mask, negative scores count as 0",
        function="attention.attention_score_mse",
        ours=lambda student, teacher, mask: attention_score_mse(student, teacher, mask).mean(),
        differs=lambda student, teacher, **_: function("att_mse_loss")(student, teacher),
    ),
]
