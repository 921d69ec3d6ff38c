"""What is logged at every step besides the terms, so that a teacher whose signal does nothing is seen at once."""

# N rows, C classes

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from potstill.losses.divergence import entropy, forward_kl
from potstill.losses.reduce import mean_over
from potstill.losses.sparse import SparseLogits, sparse_forward_kl
from potstill.objective import Step


@torch.no_grad()
def diagnose(step: Step, total_rows: dict[str, int]) -> dict[str, Tensor]:
    """This micro-batch's share of three means over all scored rows of the step; nothing where no teacher logits are.

    teacher_entropy: nats. kl: KL(teacher || student) at temperature 1, nats. agreement: share of rows with equal top-1.
    Of models with different columns, which terms on relations take, the entropy alone.
    teacher_mass: where only some of the teacher's classes are known, the probability of these, in place of its entropy;
    `kl` is then a lower bound (`losses/sparse.py`: tail). Of classes that were drawn, nothing is known but these.
    """
    found = _found(step)
    if "entropy" in found:
        found["teacher_entropy"] = found.pop("entropy")
    return {name: mean_over(values_N, total_rows["scored"]) for name, values_N in found.items()}


@torch.no_grad()
def sums_of_members(step: Step) -> dict[str, Tensor]:
    """The same of each of several teachers, `teacher/<name>/...`: sums over its rows of the micro-batch, `rows` too."""
    if step.student_logits is None:
        return {}
    sums = {}
    for name, opinion in step.members.items():
        found = _compared(step.student_logits[opinion.rows], opinion.logits)
        sums |= {f"teacher/{name}/{what}": values.sum() for what, values in found.items()}
        sums[f"teacher/{name}/rows"] = torch.full_like(sums[f"teacher/{name}/entropy"], len(opinion.rows))
    return sums


def with_means(report: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`report` with the sums of each teacher that has `rows` divided by these; 0 where it had none."""
    rows = {name.removesuffix("rows"): value for name, value in report.items() if name.endswith("/rows")}
    means = dict(report)
    for prefix, count in rows.items():
        own = [name for name in report if name.startswith(prefix) and not name.endswith("/rows")]
        means |= {name: mean_over(report[name], count) for name in own}
    return means


def _found(step: Step) -> dict[str, Tensor]:
    """Per row; of logits that were made a chunk at a time, what was seen of them on the way."""
    if step.student_logits is None:
        return dict(step.compared)
    if step.teacher_sparse is not None:
        return _compared_sparsely(step.student_logits, step.teacher_sparse)
    if step.teacher_logits is not None:
        return _compared(step.student_logits, step.teacher_logits)
    return {}


def _compared(student_NC: Tensor, teacher_NC: Tensor) -> dict[str, Tensor]:
    """Per row; of models with different columns only what needs no comparison of these."""
    alone = {"entropy": entropy(teacher_NC)}
    if student_NC.shape[-1] != teacher_NC.shape[-1]:
        return alone
    agrees_N = student_NC.argmax(dim=-1) == teacher_NC.argmax(dim=-1)
    return alone | {"kl": forward_kl(student_NC, teacher_NC, temperature=1.0), "agreement": agrees_N.float()}


def _compared_sparsely(student_NC: Tensor, teacher: SparseLogits) -> dict[str, Tensor]:
    if teacher.is_sampled:
        return {}
    agrees_N = student_NC.argmax(dim=-1) == teacher.ids[:, 0]  # the most probable stands first
    divergence = sparse_forward_kl(student_NC, teacher.log_p, teacher.ids)
    return {"teacher_mass": divergence.mass, "kl": divergence.values, "agreement": agrees_N.float()}
