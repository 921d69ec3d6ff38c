"""A loss of another project beside ours: what is drawn, what is computed, how far apart they are.

A case holds two functions of the same tensors, bound by name. Tensors are float64; those whose names begin with
`student` require a gradient. Nothing of another project is imported before a case runs.
"""

# N rows, C classes, B examples, L positions, D width, A heads, H and W of a map

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Generator, Tensor

from potstill.commands.assemble import assemble_objective
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate
from potstill.data.batch import IGNORE
from potstill.objective import Objective, Step

SEEDS = range(20)
FLOAT64 = 1e-6
# Peers that compute in float32: a rounding of 6e-8 in each of some ten terms of a row, each below 10 in size.
FLOAT32 = 1e-5
TAP = "PATH"  # stands for the module whose output is compared
TEACHER = ("teacher=pretrained", "teacher.path=DIRECTORY")  # composed, never loaded

Tensors = dict[str, Tensor]
Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """theirs, ours: the two losses, scalars, of what `draw` gives.

    name: of their loss, with options. convention: what maps one to the other. overrides: ours as a user writes it;
    or `function`: ours by name, where no term takes these inputs. differs: what a user gets who overlooks the
    convention; it must not agree. tolerance: absolute, of value and gradient.
    """

    peer: str
    name: str
    draw: Callable[[Generator], Tensors]
    theirs: Loss
    convention: str
    overrides: tuple[str, ...] = ()
    function: str = ""
    ours: Loss | None = None
    differs: Loss | None = None
    tolerance: float = FLOAT64

    @property
    def our_loss(self) -> Loss:
        return self.ours or by_overrides(*self.overrides)

    @property
    def our_name(self) -> str:
        return self.function or " ".join(self.overrides)


@dataclass(frozen=True)
class Difference:
    """The largest absolute differences of one or several seeds."""

    value: float
    gradient: float


def compare(case: Case, seed: int) -> Difference:
    tensors = case.draw(torch.Generator().manual_seed(seed))
    leaves = [tensor.requires_grad_() for name, tensor in tensors.items() if name.startswith("student")]
    their_value, our_value = (loss(**tensors).double().reshape(()) for loss in (case.theirs, case.our_loss))
    their_gradients = torch.autograd.grad(their_value, leaves)
    our_gradients = torch.autograd.grad(our_value, leaves)
    pairs = zip(their_gradients, our_gradients, strict=True)
    gradient = max((theirs - ours).abs().max().item() for theirs, ours in pairs)
    return Difference((their_value - our_value).abs().item(), gradient)


def compare_seeds(case: Case) -> Difference:
    differences = [compare(case, seed) for seed in SEEDS]
    return Difference(max(each.value for each in differences), max(each.gradient for each in differences))


def gap_where_overlooked(case: Case, seed: int) -> float:
    """How far `differs` is from theirs, as a share of theirs."""
    assert case.differs is not None
    tensors = case.draw(torch.Generator().manual_seed(seed))
    theirs, overlooked = case.theirs(**tensors).double(), case.differs(**tensors).double()
    return ((overlooked - theirs) / theirs).abs().item()


def version(peer: str) -> str | None:
    """The installed version; None where there is none."""
    try:
        return importlib.metadata.version(peer)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def theirs(name: str) -> ModuleType:
    """A module of a peer. What it warns of at import is its own affair."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


@functools.cache
def their_file(package: str, path: str) -> ModuleType:
    """One file of a peer, without the package around it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / path
    of_file = importlib.util.spec_from_file_location(f"{package}_{file.stem}", file)
    assert of_file is not None
    assert of_file.loader is not None
    module = importlib.util.module_from_spec(of_file)
    of_file.loader.exec_module(module)
    return module


def by_overrides(*overrides: str) -> Loss:
    """The loss that a user gets: composed, validated, bound to the fields of a Step, divided by the rows."""
    return lambda **tensors: loss_of(objective(overrides), step_of(tensors))


@functools.cache
def objective(overrides: tuple[str, ...]) -> Objective:
    config = typed(composed("train", [*TEACHER, *overrides]), TrainConfig)
    validate(config)
    return assemble_objective(config)


def step_of(tensors: Tensors) -> Step:
    """Rows as a task adapter gives them: scored rows alone, attended positions alone."""
    student, teacher, mask_BL = tensors.get("student"), tensors.get("teacher"), tensors.get("mask")
    if mask_BL is not None:
        tensors = {name: tensor[mask_BL] for name, tensor in tensors.items() if tensor.dim() > 2}
    hidden = {name: {TAP: tensors[f"{name}_tap"]} for name in ("student", "teacher") if f"{name}_tap" in tensors}
    labels = tensors.get("labels")
    if labels is None:
        labels = torch.zeros(len(next(iter(tensors.values()))), dtype=torch.long)
    kept = labels.flatten() != IGNORE
    return Step(
        student_logits=None if student is None else student.flatten(0, -2)[kept],
        teacher_logits=None if teacher is None else teacher.flatten(0, -2)[kept],
        labels=labels.flatten()[kept],
        student_hidden=hidden.get("student", {}),
        teacher_hidden=hidden.get("teacher", {}),
    )


def loss_of(objective: Objective, step: Step) -> Tensor:
    objective.prepare(step)
    return objective(step, counts_of(step))[0]


def counts_of(step: Step) -> dict[str, int]:
    """Rows by kind; a tap gives one an attended position, or one an image."""
    num_rows = len(step.labels)
    num_taps = max((len(tap) for tap in step.student_hidden.values()), default=0)
    return {"labelled": num_rows, "scored": num_rows, "positions": num_taps, "examples": num_taps}


def draw_normal(generator: Generator, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def examples(generator: Generator) -> Tensors:
    """Logits `[N, C]` of labelled examples; the teacher is the surer, so that no direction looks like the other."""
    student, teacher = (draw_normal(generator, 12, 7, scale=scale) for scale in (1.0, 3.0))
    return {"student": student, "teacher": teacher, "labels": torch.randint(7, (12,), generator=generator)}


def tokens(generator: Generator) -> Tensors:
    """Logits `[B, L, C]` of a language model; every third position is prompt or padding."""
    student, teacher = (draw_normal(generator, 3, 5, 11, scale=scale) for scale in (1.0, 3.0))
    labels = torch.randint(11, (3, 5), generator=generator)
    labels.flatten()[::3] = IGNORE
    return {"student": student, "teacher": teacher, "labels": labels}


def heads(generator: Generator) -> Tensors:
    """What a language model's head is given, and the heads."""
    drawn = tokens(generator)
    return {
        "student_states": draw_normal(generator, 15, 6),
        "student_head": draw_normal(generator, 11, 6),
        "teacher_states": draw_normal(generator, 15, 8),
        "teacher_head": draw_normal(generator, 11, 8),
        "labels": drawn["labels"].flatten(),
    }


def vectors(generator: Generator) -> Tensors:
    """One vector an example, of two widths."""
    return {"student_tap": draw_normal(generator, 9, 5), "teacher_tap": draw_normal(generator, 9, 7)}


def maps(generator: Generator) -> Tensors:
    """Feature maps `[B, D, H, W]`, of two numbers of channels."""
    return {"student_tap": draw_normal(generator, 4, 3, 5, 5), "teacher_tap": draw_normal(generator, 4, 6, 5, 5)}


def states(generator: Generator) -> Tensors:
    """Hidden states `[B, L, D]` with padding, of one width."""
    mask_BL = torch.arange(5) < torch.tensor([[5], [3], [4]])
    return {
        "student_tap": draw_normal(generator, 3, 5, 6),
        "teacher_tap": draw_normal(generator, 3, 5, 6),
        "mask": mask_BL,
    }


def scores(generator: Generator) -> Tensors:
    """Attention scores `[B, A, L, L]` with padding."""
    student, teacher = (draw_normal(generator, 3, 2, 5, 5) for _ in range(2))
    return {"student": student, "teacher": teacher, "mask": torch.arange(5) < torch.tensor([[5], [3], [4]])}


def candidates(generator: Generator) -> Tensors:
    """Embeddings of queries and of three candidates each, and a teacher's scores of them."""
    names = ("student_query", "student_first", "student_second", "student_third")
    drawn: dict[str, Any] = {name: draw_normal(generator, 8, 6) for name in names}
    return {**drawn, "teacher": draw_normal(generator, 8, 3)}


def embeddings(generator: Generator) -> Tensors:
    """Embeddings of one width."""
    return {"student": draw_normal(generator, 8, 6), "teacher": draw_normal(generator, 8, 6)}
