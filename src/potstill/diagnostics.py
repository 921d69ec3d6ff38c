"""What is logged at every step besides the terms, so that a teacher whose signal does nothing is seen at once."""

# N rows, C classes

from __future__ import annotations

import torch
from torch import Tensor

from potstill.losses.divergence import entropy, forward_kl
from potstill.losses.reduce import mean_over
from potstill.objective import Step


@torch.no_grad()
def diagnose(step: Step, total_rows: dict[str, int]) -> dict[str, Tensor]:
    """This micro-batch's share of three means over all scored rows of the step; nothing where no teacher logits are.

    teacher_entropy: nats. kl: KL(teacher || student) at temperature 1, nats. agreement: share of rows with equal top-1.
    """
    student_NC, teacher_NC = step.student_logits, step.teacher_logits
    if student_NC is None or teacher_NC is None:
        return {}
    rows = total_rows["scored"]
    agrees = student_NC.argmax(dim=-1) == teacher_NC.argmax(dim=-1)
    return {
        "teacher_entropy": mean_over(entropy(teacher_NC), rows),
        "kl": mean_over(forward_kl(student_NC, teacher_NC, temperature=1.0), rows),
        "agreement": mean_over(agrees.float(), rows),
    }
