"""Liger-Kernel: its chunked losses, plain torch with a backward of their own. Its Triton kernels need an accelerator.

They multiply states by the heads themselves, divide by the labelled tokens, and add values up in float32; gradients
are float64 here.
"""

# N rows, C vocabulary, D width

from __future__ import annotations

from torch import Tensor

from benchmarks.parity_cases.comparing import Case, Loss, Tensors, by_overrides, heads, theirs
from potstill.data.batch import IGNORE
from potstill.losses.hidden import hidden_cosine


def fused(name: str, **options: float) -> Loss:
    """In chunks of four rows."""

    def loss(student_states: Tensor, student_head: Tensor, labels: Tensor, **teacher: Tensor) -> Tensor:
        made = getattr(theirs("liger_kernel.chunked_loss"), name)(**options, compiled=False, chunk_size=4)
        return made(student_states, student_head, teacher["teacher_states"], teacher["teacher_head"], labels)

    return loss


def logits(**given: Tensor) -> Tensors:
    made = {model: given[f"{model}_states"] @ given[f"{model}_head"].T for model in ("student", "teacher")}
    return {**made, "labels": given["labels"]}


def of_logits(*overrides: str) -> Loss:
    return lambda **given: by_overrides(*overrides)(**logits(**given))


def cosine_of_logits(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return hidden_cosine(student[labels != IGNORE], teacher[labels != IGNORE]).mean()


def _jsd(convention: str, overrides: tuple[str, ...], overlooked: tuple[str, ...], **options: float) -> Case:
    return Case(
        "liger-kernel",
        "LigerFusedLinearJSDLoss " + " ".join(f"{name}={value}" for name, value in options.items()),
        heads,
        fused("LigerFusedLinearJSDLoss", **options),
        convention,
        overrides,
        ours=of_logits(*overrides),
        differs=of_logits(*overlooked) if overlooked else None,
    )


SOFT = {"weight_hard_loss": 0.0, "weight_soft_loss": 1.0}
TEMPERED = ("loss/term=[jsd]", "loss.term.jsd.beta=0.1", "loss.term.jsd.temperature=2.0")
MIXED = ("loss/term=[ce,jsd]", "loss.term.ce.weight=0.5", "loss.term.jsd.weight=0.5", "loss.term.jsd.beta=0.5")

CASES = [
    _jsd("beta 0 is forward KL", ("loss/term=[jsd]", "loss.term.jsd.beta=0.0"), (), **SOFT, beta=0.0),
    _jsd("beta 1 is reverse KL", ("loss/term=[jsd]", "loss.term.jsd.beta=1.0"), (), **SOFT, beta=1.0),
    _jsd(
        "beta weighs the teacher; no T^2",
        (*TEMPERED, "loss.term.jsd.t2_scaling=false"),
        TEMPERED,
        **SOFT,
        beta=0.1,
        temperature=2.0,
    ),
    _jsd(
        "its defaults: half labels, half divergence",
        MIXED,
        ("loss/term=[ce,jsd]",),
        weight_hard_loss=0.5,
        weight_soft_loss=0.5,
        beta=0.5,
    ),
    Case(
        "liger-kernel",
        "LigerFusedLinearCosineSimilarityLoss beta=0.5 (its default)",
        heads,
        fused("LigerFusedLinearCosineSimilarityLoss", **SOFT, beta=0.5),
        "of logits; beta multiplies: half of 1 - cosine",
        function="hidden.hidden_cosine of logits, times 0.5",
        ours=lambda **given: 0.5 * cosine_of_logits(**logits(**given)),
        differs=lambda **given: cosine_of_logits(**logits(**given)),
    ),
]
