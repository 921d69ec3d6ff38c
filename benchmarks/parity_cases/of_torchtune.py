"""torchtune: forward KL without the teacher's entropy, in float32.

Its last release asks for torchao at import; the file with its losses needs torch alone, and is taken by itself.
"""

# N rows, C vocabulary

from __future__ import annotations

from torch import Tensor

from benchmarks.parity_cases.comparing import FLOAT32, Case, Loss, by_overrides, their_file, tokens

PEER = "torchtune"


def of_tokens(name: str, **options: float) -> Loss:
    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        made = getattr(their_file(PEER, "modules/loss/kd_losses.py"), name)(**options)
        return made(student.flatten(0, 1), teacher.flatten(0, 1), labels.flatten())

    return loss


SYMMETRIC = ("loss/term=[forward_ce,reverse_kl]", "loss.term.forward_ce.weight=0.3", "loss.term.reverse_kl.weight=0.7")

CASES = [
    Case(
        PEER,
        "ForwardKLLoss",
        tokens,
        of_tokens("ForwardKLLoss"),
        "leaves out the teacher's entropy: a cross-entropy, with the gradient of KL",
        ("loss/term=[forward_ce]", "loss.term.forward_ce.temperature=1.0"),
        differs=by_overrides("loss/term=[kd]", "loss.term.kd.temperature=1.0"),
        tolerance=FLOAT32,
    ),
    Case(
        PEER,
        "ReverseKLLoss",
        tokens,
        of_tokens("ReverseKLLoss"),
        "a true KL",
        ("loss/term=[reverse_kl]", "loss.term.reverse_kl.temperature=1.0"),
        tolerance=FLOAT32,
    ),
    Case(
        PEER,
        "SymmetricKLLoss sym_kd_ratio=0.3",
        tokens,
        of_tokens("SymmetricKLLoss", sym_kd_ratio=0.3),
        "ratio weighs the forward cross-entropy",
        SYMMETRIC,
        tolerance=FLOAT32,
    ),
]
