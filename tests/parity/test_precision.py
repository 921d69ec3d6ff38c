"""Sixteen bits in the models, thirty-two in the losses: the golden values under autocast, and from rounded inputs."""

# N rows

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from potstill.commands.fit import PRECISIONS
from potstill.losses import attention, divergence, relation, response
from potstill.losses.hidden import hidden_cosine, hidden_mse, patient
from potstill.losses.sparse import TopkMode, sparse_forward_kl
from potstill.losses.terms import Term
from potstill.objective import Objective, Step
from tests.integration.distil import LOGIT_TASKS, MODELS, batch, distillation, fit, model

from .test_golden import LABELS, MASK, STUDENT, STUDENT_HIDDEN, TEACHER, TEACHER_HIDDEN
from .test_golden_features import (
    STUDENT_EMBEDDINGS,
    STUDENT_MAPS,
    STUDENT_SCORES,
    TEACHER_EMBEDDINGS,
    TEACHER_MAPS,
    TEACHER_SCORES,
    TEACHER_WIDE,
)

Cast = Callable[[Tensor], Tensor]
Loss = Callable[[Cast], Tensor]

# Relative. bfloat16 keeps 8 bits: a logit of 3 is off by up to 0.008, and a loss that is exact otherwise by about that.
ROUNDED_INPUTS, FLOAT32 = 0.01, 1e-5
ROUNDED_MODEL = 0.01  # all of a model of two layers, in 16 bits
PRECISIONS_OF_16_BITS = ["bf16-mixed", "bf16-true"]


def of_logits(loss: Callable[..., Tensor], **options: Any) -> Loss:
    return lambda cast: loss(cast(STUDENT), cast(TEACHER), **options)


def sparse(temperature: float, topk_mode: TopkMode) -> Loss:
    def loss(cast: Cast) -> Tensor:
        stored = cast(TEACHER).log_softmax(dim=-1)
        top = stored.topk(3, dim=-1)
        normaliser = (stored / temperature).float().logsumexp(dim=-1)
        options: dict[str, Any] = {"topk_mode": topk_mode, "t2_scaling": False, "log_normaliser_N": normaliser}
        return sparse_forward_kl(cast(STUDENT), top.values, top.indices, temperature=temperature, **options)[0]

    return loss


def standardised(cast: Cast) -> Tensor:
    student, teacher = (response.standardise_logits(cast(logits)) for logits in (STUDENT, TEACHER))
    return divergence.forward_kl(student, teacher, temperature=2.0)


def of_maps(cast: Cast) -> Tensor:
    student, teacher = (cast(maps).flatten(2).transpose(1, 2) for maps in (STUDENT_MAPS, TEACHER_MAPS))
    return attention.attention_transfer(student, teacher)


def of_embeddings(loss: Callable[..., Tensor]) -> Loss:
    return lambda cast: loss(cast(STUDENT_EMBEDDINGS), cast(TEACHER_EMBEDDINGS)).reshape(-1)


def of_hidden(loss: Callable[..., Tensor], rows: Any) -> Loss:
    return lambda cast: loss(cast(STUDENT_HIDDEN)[rows], cast(TEACHER_HIDDEN)[rows])


def of_relations(num_heads: int) -> Loss:
    return lambda cast: attention.relation_kl(cast(STUDENT_HIDDEN), cast(TEACHER_WIDE), MASK, num_heads=num_heads)


GOLDEN: dict[str, Loss] = {
    "ce": lambda cast: response.cross_entropy(cast(STUDENT), LABELS),
    "forward_kl T=1": of_logits(divergence.forward_kl, temperature=1.0),
    "forward_kl T=2, no T^2": of_logits(divergence.forward_kl, temperature=2.0, t2_scaling=False),
    "forward_kl T=2": of_logits(divergence.forward_kl, temperature=2.0),
    "forward_kl T=4": of_logits(divergence.forward_kl, temperature=4.0),
    "reverse_kl T=1": of_logits(divergence.reverse_kl, temperature=1.0),
    "forward_ce T=1": of_logits(divergence.forward_ce, temperature=1.0),
    "entropy T=1": lambda cast: divergence.entropy(cast(TEACHER), temperature=1.0),
    "entropy T=4": lambda cast: divergence.entropy(cast(TEACHER), temperature=4.0),
    "jsd beta=0.1": of_logits(divergence.jsd, beta=0.1),
    "jsd beta=0.5": of_logits(divergence.jsd, beta=0.5),
    "jsd beta=0.9": of_logits(divergence.jsd, beta=0.9),
    "tvd": of_logits(divergence.tvd),
    "skew_forward_kl": of_logits(divergence.skew_forward_kl, skew=0.1),
    "skew_reverse_kl": of_logits(divergence.skew_reverse_kl, skew=0.1),
    "sparse, tail, T=1": sparse(1.0, "tail"),
    "sparse, tail, T=2": sparse(2.0, "tail"),
    "sparse, renormalise_both": sparse(1.0, "renormalise_both"),
    "dkd": lambda cast: response.dkd(
        *(cast(STUDENT), cast(TEACHER), LABELS), target_weight=1.0, non_target_weight=8.0, temperature=4.0
    ),
    "tckd": lambda cast: response.dkd_parts(cast(STUDENT), cast(TEACHER), LABELS, temperature=4.0)[0],
    "nckd": lambda cast: response.dkd_parts(cast(STUDENT), cast(TEACHER), LABELS, temperature=4.0)[1],
    "dist_inter": of_logits(response.dist_inter),
    "dist_intra": of_logits(response.dist_intra),
    "logit standardisation": standardised,
    "rkd_distance": of_embeddings(relation.rkd_distance),
    "rkd_angle": of_embeddings(relation.rkd_angle),
    "similarity_preserving": of_embeddings(relation.similarity_preserving),
    "pkt": of_embeddings(relation.pkt),
    "linear_cka": of_embeddings(relation.linear_cka),
    "attention_transfer": of_maps,
    "hidden_mse": of_hidden(hidden_mse, MASK),
    "hidden_cosine": of_hidden(hidden_cosine, MASK),
    "patient": of_hidden(patient, (slice(None), 0)),
    "attention_score_mse": lambda cast: attention.attention_score_mse(cast(STUDENT_SCORES), cast(TEACHER_SCORES), MASK),
    "relation_kl, 2 heads": of_relations(2),
    "relation_kl, 3 heads": of_relations(3),
}


class Golden(Term):
    """A loss of the golden inputs as a term, so that it is computed where an objective computes its terms."""

    rows = "scored"

    def __init__(self, loss: Loss, cast: Cast) -> None:
        super().__init__(weight=1.0)
        self.loss, self.cast = loss, cast

    def forward(self, labels: Tensor) -> Tensor:  # noqa: ARG002  a field of Step, to be asked for something
        return self.loss(self.cast)


def objective_value(loss: Loss, cast: Cast) -> Tensor:
    step = Step(student_logits=None, teacher_logits=None, labels=LABELS)
    return Objective({"golden": Golden(loss, cast)})(step, {"scored": len(loss(cast))})[0]


@pytest.mark.parametrize("name", GOLDEN)
def test_inputs_of_16_bits_leave_a_loss_exact_finite_and_not_negative(name: str) -> None:
    loss = GOLDEN[name]
    values_N = loss(Tensor.bfloat16)
    assert values_N.dtype == torch.float32
    assert torch.isfinite(values_N).all()
    assert (values_N >= 0.0).all()
    of_rounded = loss(lambda tensor: tensor.bfloat16().double()).mean().item()
    # log-probabilities of a sparse teacher are stored, and so rounded, before the loss begins
    tolerance = ROUNDED_INPUTS if name.startswith("sparse") else FLOAT32
    assert values_N.mean().item() == pytest.approx(of_rounded, rel=tolerance)
    assert values_N.mean().item() == pytest.approx(loss(Tensor.float).mean().item(), rel=ROUNDED_INPUTS)


@pytest.mark.parametrize("cast", [Tensor.float, Tensor.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", GOLDEN)
def test_autocast_takes_no_bit_from_a_loss(name: str, cast: Cast) -> None:
    """Matrix products above all: relations are made of them."""
    expected = objective_value(GOLDEN[name], cast)
    with torch.autocast("cpu", torch.bfloat16):
        found = objective_value(GOLDEN[name], cast)
    assert found.dtype == torch.float32
    assert found.item() == expected.item()


def trained(task: str, precision: str) -> tuple[Any, list[Tensor], dict[str, float]]:
    """A step of every kind of term: the module, what its objective gave, and what was logged."""
    student = model(task, seed=1, hidden_size=8)
    if precision == "bf16-true":
        student.bfloat16()
    of_rows = ["ce", "kd", "reverse_kl", "jsd"] if task in LOGIT_TASKS else ["embedding_mse", "embedding_cosine"]
    terms = [*of_rows, "hidden_mse"]
    module, losses = distillation(task, *terms, student=student, max_examples=5), []
    module.objective.register_forward_hook(lambda _module, _step, share: losses.extend((share[0], *share[1].values())))
    trainer = fit(module, [batch(task)], precision=PRECISIONS[precision])
    return module, losses, {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("precision", PRECISIONS_OF_16_BITS)
@pytest.mark.parametrize("task", MODELS)
def test_models_of_16_bits_have_losses_of_32_close_to_those_of_float32(task: str, precision: str) -> None:
    module, losses, found = trained(task, precision)
    expected = trained(task, "32")[2]
    assert {loss.dtype for loss in losses} == {torch.float32}
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert {parameter.dtype for parameter in module.student.parameters()} == {dtype}
    assert {parameter.dtype for parameter in module.objective.parameters()} == {torch.float32}
    assert found.keys() == expected.keys()
    for name in expected:
        if name.startswith(("train/loss", "train/term")):
            assert 0.0 < found[name] == pytest.approx(expected[name], rel=ROUNDED_MODEL), name
            assert found[name] != expected[name], name  # it did run in 16 bits
