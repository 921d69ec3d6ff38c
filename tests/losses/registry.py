"""Every term that `conf/loss/term` offers, so that a new one cannot escape the properties all must have."""

# N rows, K texts of a row, C classes, D width

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from potstill.data.batch import IGNORE
from potstill.losses import divergence
from potstill.losses.layers import Layers, Part
from potstill.losses.response_terms import ForwardCE
from potstill.losses.sparse import SparseLogits
from potstill.losses.terms import Term
from potstill.objective import Objective, Step

TERM_DIRECTORY = Path(__file__).parents[2] / "conf" / "loss" / "term"
TERM_NAMES = sorted(path.stem for path in TERM_DIRECTORY.glob("*.yaml"))
TAP, MAP, STATES = "tap", "map", ("queries", "keys", "values")
# A vector a row; a feature map a row (channels, height, width); tokens a row, of which a layer's parts are made.
HIDDEN_SHAPES = {TAP: (5,), MAP: (3, 2, 3), **dict.fromkeys(STATES, (2, 4))}
EMBEDDINGS_SHAPE = (3, 5)  # an anchor, a positive and a negative; width
LAYERS = Layers(
    architecture="Example",
    embeddings="queries",
    outputs=("keys", "values"),
    attention=(
        {name: Part(path) for name, path in zip(STATES, STATES[::-1], strict=True)},
        {name: Part(name) for name in STATES},
    ),
    num_heads=2,
    has_plain_scores=True,
)
FOR_TINY_MODELS = {"minilm_v2": {"num_heads": 2}, "pkd": {"projector": "linear"}}  # of other widths than is usual
MAP_TERMS = {"attention_transfer", "nst"}  # compare what lies where, which a vector does not say
SCORE_TERMS = {"minilm", "tinybert_attention"}  # of attention scores, which GPT-2's are not to be had from its taps
# Float32 rounds a KL to 1e-6 T^2 (losses/divergence.py), so that properties are looked at at temperatures of a few.
OPTIONS = {"ctkd": {"initial": -3.0}}


def options_of(name: str, tap: str) -> dict[str, object]:
    """What a test has to choose of a term: paths where it has taps, and what suits tiny models."""
    configured = OmegaConf.load(TERM_DIRECTORY / f"{name}.yaml")
    taps = {option: tap for option in ("student_tap", "teacher_tap") if option in configured}
    return {**taps, **FOR_TINY_MODELS.get(name, {})}


def make_term(name: str, **options: object) -> Term:
    """The term as configured, `options` over it; taps get a path that `make_step` fills, layers are `LAYERS`.

    Of a schedule it has the end: some begin with an option that is off.
    """
    chosen = {**options_of(name, MAP if name in MAP_TERMS else TAP), **OPTIONS.get(name, {}), **options}
    config = OmegaConf.merge(OmegaConf.load(TERM_DIRECTORY / f"{name}.yaml"), chosen)
    scheduled = {
        str(option): value.end for option, value in config.items_ex(resolve=False) if isinstance(value, DictConfig)
    }
    term = instantiate(config, **scheduled)
    if term.by_layer:
        term.locate(LAYERS, LAYERS)
    return term


def make_objective(name: str, step: Step, **options: object) -> Objective:
    """An objective of one term, prepared for `step`."""
    torch.manual_seed(0)  # what a term makes at random is the same in every objective
    objective = Objective({name: make_term(name, **options)})
    objective.prepare(step)
    return objective


TEACHER_TERMS = [name for name in TERM_NAMES if Objective({name: make_term(name)}).needs_teacher]
LOGIT_TERMS = [name for name in TERM_NAMES if Objective({name: make_term(name)}).needs_student.logits]
EMBEDDING_TERMS = [name for name in TERM_NAMES if Objective({name: make_term(name)}).needs_student.embeddings]
TEACHER_LOGIT_TERMS = [name for name in TEACHER_TERMS if name in LOGIT_TERMS]
SPARSE_TERMS = [name for name in TERM_NAMES if hasattr(make_term(name), "topk_mode")]
TEMPERED_TERMS = [name for name in TEACHER_LOGIT_TERMS if hasattr(make_term(name), "temperature")]
COUPLED_TERMS = [name for name in TERM_NAMES if make_term(name).couples_rows]
SEPARATE_TERMS = [name for name in TERM_NAMES if name not in COUPLED_TERMS]  # no cut of a batch moves them

# Its target is an order, as hard as a label: equal logits have the right order, and larger gaps would be better still.
# info_nce tells every text from every other, also from those that are alike: a text's own number is its label.
HARD_TARGET_TERMS = {"list_mle", "info_nce"}
# Examples that are not the same push each other apart, however much the models agree.
CONTRASTIVE_TERMS = {"crd"}
# Its weight between two divergences is a constant to the gradient, by its definition (tests/losses/test_divergence.py).
CONSTANT_WEIGHT_TERMS = {"adaptive_kl"}


def least(term: Term, step: Step) -> float:
    """What the term is worth where student and teacher are equal: the teacher's entropy, of a cross-entropy."""
    if not isinstance(term, ForwardCE):
        return 0.0
    assert step.teacher_logits is not None
    return divergence.forward_ce(step.teacher_logits, step.teacher_logits, **term.tempering).mean().item()


def make_step(num_rows: int = 16, dtype: torch.dtype = torch.float64, seed: int = 0, *, noise: float = 1.0) -> Step:
    """Random rows, every third without a label. The student is the teacher plus `noise`, a leaf that requires grad."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    teacher_NC = 2 * draw(num_rows, 7)
    student_NC = teacher_NC + noise * draw(num_rows, 7)
    labels_N = torch.randint(7, (num_rows,), generator=generator)
    labels_N[::3] = IGNORE
    teacher_hidden = {path: draw(num_rows, *shape) for path, shape in HIDDEN_SHAPES.items()}
    student_hidden = {path: value + noise * draw(*value.shape) for path, value in teacher_hidden.items()}
    teacher_embeddings = draw(num_rows, *EMBEDDINGS_SHAPE)
    student_embeddings = teacher_embeddings + noise * draw(num_rows, *EMBEDDINGS_SHAPE)
    return Step(
        student_logits=student_NC.to(dtype).requires_grad_(),
        teacher_logits=teacher_NC.to(dtype),
        labels=labels_N,
        student_hidden={path: value.to(dtype).requires_grad_() for path, value in student_hidden.items()},
        teacher_hidden={path: value.to(dtype) for path, value in teacher_hidden.items()},
        student_embeddings=student_embeddings.to(dtype).requires_grad_(),
        teacher_embeddings=teacher_embeddings.to(dtype),
        numbers=torch.arange(num_rows),
        num_examples=2 * num_rows,
    )


def make_sparse_step(top_k: int = 3, *, ragged: bool = False, **options: Any) -> Step:
    """`make_step` with a teacher of whom only the most probable classes are known; of some rows one, where ragged."""
    step = make_step(**options)
    assert step.teacher_logits is not None
    log_p_NK, ids_NK = step.teacher_logits.log_softmax(dim=-1).topk(top_k, dim=-1)
    if ragged:
        log_p_NK[1::2, 1:] = -torch.inf
        ids_NK[1::2, 1:] = ids_NK[1::2, :1]
    step.teacher_logits, step.teacher_sparse = None, SparseLogits(log_p_NK, ids_NK)
    return step


def select(step: Step, rows: Tensor) -> Step:
    """Some rows of a step, in the same graph."""
    assert step.student_logits is not None
    assert step.student_embeddings is not None
    assert step.teacher_embeddings is not None
    return Step(
        student_logits=step.student_logits[rows],
        teacher_logits=None if step.teacher_logits is None else step.teacher_logits[rows],
        teacher_sparse=None if step.teacher_sparse is None else step.teacher_sparse.take(rows),
        labels=step.labels[rows],
        student_hidden={path: value[rows] for path, value in step.student_hidden.items()},
        teacher_hidden={path: value[rows] for path, value in step.teacher_hidden.items()},
        student_embeddings=step.student_embeddings[rows],
        teacher_embeddings=step.teacher_embeddings[rows],
        numbers=None if step.numbers is None else step.numbers[rows],
        num_examples=step.num_examples,
    )


def count_rows(step: Step) -> dict[str, int]:
    num_rows = len(step.labels)
    labelled = int((step.labels != IGNORE).sum())
    return {"labelled": labelled, "scored": num_rows, "positions": num_rows, "examples": num_rows}


def loss_of(objective: Objective, step: Step) -> Tensor:
    torch.manual_seed(0)  # what a term draws is the same every time
    return objective(step, count_rows(step))[0]


def student_gradient(step: Step) -> Tensor:
    """Gradients of everything the student gives, `[N, all widths]`; 0 where a term does not look."""
    assert step.student_logits is not None
    assert step.student_embeddings is not None
    leaves = [step.student_logits, *step.student_hidden.values(), step.student_embeddings]
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return torch.cat([gradient.flatten(start_dim=1) for gradient in gradients], dim=1)
