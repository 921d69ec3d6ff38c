"""Every term that `conf/loss/term` offers, so that a new one cannot escape the properties all must have."""

# N rows, C classes, D width

from __future__ import annotations

from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from potstill.data.batch import IGNORE
from potstill.losses.terms import Term
from potstill.objective import Objective, Step

TERM_DIRECTORY = Path(__file__).parents[2] / "conf" / "loss" / "term"
TERM_NAMES = sorted(path.stem for path in TERM_DIRECTORY.glob("*.yaml"))
TAP = "tap"


def make_term(name: str, **options: object) -> Term:
    """The term as configured, `options` over it; mandatory taps get the one path that `make_step` fills."""
    config = OmegaConf.merge(OmegaConf.load(TERM_DIRECTORY / f"{name}.yaml"), options)
    taps = dict.fromkeys(OmegaConf.missing_keys(config), TAP)
    return instantiate(config, **taps)


def make_objective(name: str, step: Step, **options: object) -> Objective:
    """An objective of one term, prepared for `step`."""
    objective = Objective({name: make_term(name, **options)})
    objective.prepare(step)
    return objective


TEACHER_TERMS = [name for name in TERM_NAMES if Objective({name: make_term(name)}).needs_teacher]
LOGIT_TERMS = [name for name in TERM_NAMES if Objective({name: make_term(name)}).needs_student.logits]
TEACHER_LOGIT_TERMS = [name for name in TEACHER_TERMS if name in LOGIT_TERMS]


def make_step(num_rows: int = 16, dtype: torch.dtype = torch.float64, seed: int = 0, *, noise: float = 1.0) -> Step:
    """Random rows, every third without a label. The student is the teacher plus `noise`, a leaf that requires grad."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    teacher_NC, teacher_ND = 2 * draw(num_rows, 7), draw(num_rows, 5)
    student_NC, student_ND = teacher_NC + noise * draw(num_rows, 7), teacher_ND + noise * draw(num_rows, 5)
    labels_N = torch.randint(7, (num_rows,), generator=generator)
    labels_N[::3] = IGNORE
    return Step(
        student_logits=student_NC.to(dtype).requires_grad_(),
        teacher_logits=teacher_NC.to(dtype),
        labels=labels_N,
        student_hidden={TAP: student_ND.to(dtype).requires_grad_()},
        teacher_hidden={TAP: teacher_ND.to(dtype)},
    )


def select(step: Step, rows: Tensor) -> Step:
    """Some rows of a step, in the same graph."""
    assert step.student_logits is not None
    assert step.teacher_logits is not None
    return Step(
        student_logits=step.student_logits[rows],
        teacher_logits=step.teacher_logits[rows],
        labels=step.labels[rows],
        student_hidden={TAP: step.student_hidden[TAP][rows]},
        teacher_hidden={TAP: step.teacher_hidden[TAP][rows]},
    )


def count_rows(step: Step) -> dict[str, int]:
    num_rows = len(step.labels)
    return {"labelled": int((step.labels != IGNORE).sum()), "scored": num_rows, "positions": num_rows}


def loss_of(objective: Objective, step: Step) -> Tensor:
    return objective(step, count_rows(step))[0]


def student_gradient(step: Step) -> Tensor:
    """Gradients of everything the student gives, `[N, C + D]`; 0 where a term does not look."""
    leaves = [step.student_logits, step.student_hidden[TAP]]
    return torch.cat([torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves], dim=1)  # type: ignore[union-attr, arg-type]
