"""The gradient of a step through the trainer: what cuts, padding and a wrong division do to it, for every term."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from potstill.commands.assemble import Models, Source, make_module
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.data.batch import Batch
from potstill.errors import UserError
from potstill.models.task import TASKS, Task
from potstill.module import DistillationModule
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, Signal
from tests.losses.registry import (
    CONTRASTIVE_TERMS,
    COUPLED_TERMS,
    EMBEDDING_TERMS,
    HARD_TARGET_TERMS,
    LOGIT_TERMS,
    SCORE_TERMS,
    SEPARATE_TERMS,
    TEACHER_TERMS,
    TEMPERED_TERMS,
    TERM_NAMES,
    least,
)
from tests.models.tiny import causal_batch
from tests.tiers import IS_THOROUGH

from .distil import MODELS, NUM_EXAMPLES, batch, distillation, model, objective, one_step, relative_difference, twin

TOLERANCE = 1e-5  # float32
CUTS: dict[str, tuple[int | None, int | None]] = {
    "4x4": (4, None),
    "16x1": (1, None),
    "5 5 5 1": (5, None),
    "40 tokens": (None, 40),
    "3 examples, 20 tokens": (3, 20),
}
WHOLE = (None, None)
PADDINGS = [{"left": 3}, {"right": 4}, {"left": 2, "right": 5}]
HARDEST = ("5 5 5 1", "3 examples, 20 tokens")  # cuts that are uneven, by one limit and by both
# one of each kind, put to every cut and padding; the rest is for `make test`
QUICK = {"ce", "dist_intra", "embedding_mse", "hidden_mse", "kd", "minilm_v2", "pkt", "similarity_kl"}
TEXT_TASKS = [task for task in MODELS if TASKS[task].is_text]
WEIGHTS = {"pkt": 3.0e4}  # of conf/loss/pkt.yaml, without which it is too small to be seen beside rounding


def cuts(term: str) -> dict[str, tuple[int | None, int | None]]:
    return CUTS if term in QUICK or IS_THOROUGH else {name: CUTS[name] for name in HARDEST}


def paddings(term: str) -> list[dict[str, int]]:
    return PADDINGS if term in QUICK or IS_THOROUGH else PADDINGS[-1:]


def applies(term: str, task: Task) -> bool:
    if task.is_embedding or term in EMBEDDING_TERMS:
        # crd has a memory of examples, and an example here is three texts
        return task.is_embedding and term not in (*LOGIT_TERMS, "crd")
    return not (task.is_causal and term in SCORE_TERMS)


def of_every(terms: Iterable[str], tasks: Iterable[str] = MODELS) -> pytest.MarkDecorator:
    """Every one of the terms, on every one of the tasks to which it applies."""
    pairs = [(task, term) for term in terms for task in tasks if applies(term, TASKS[task])]
    cases, seen = [], set()
    for task, term in pairs:
        is_first = term not in seen
        seen.add(term)
        marks = () if term in QUICK else (pytest.mark.slow,) if is_first else (pytest.mark.slow, pytest.mark.thorough)
        cases.append(pytest.param(task, term, marks=marks))
    return pytest.mark.parametrize(("task", "term"), cases)


class AverageOfAverages(DistillationModule):
    """The usual mistake: each micro-batch divides by its own rows, and their number divides the sum."""

    num_pieces = 1

    def _backward(self, piece: Batch, total_rows: dict[str, int]) -> dict[str, Any]:  # noqa: ARG002
        own = self.task.count_rows(piece)
        return super()._backward(piece, {kind: max(rows, 1) * self.num_pieces for kind, rows in own.items()})


class NextExamples:
    """A teacher that answers every example with what it knows about the next."""

    def __init__(self, source: LiveTeacher) -> None:
        self.source, self.model = source, source.model

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        signal = self.source.signal(batch, needs)
        hidden = {path: value.roll(1, dims=0) for path, value in signal.hidden.items()}
        logits, embeddings = (
            None if kind is None else kind.roll(1, dims=0) for kind in (signal.logits, signal.embeddings)
        )
        return Signal(logits, hidden, embeddings)

    def to(self, device: torch.device) -> NextExamples:
        self.source.to(device)
        return self


def cut_into(module: DistillationModule, limits: tuple[int | None, int | None]) -> DistillationModule:
    module.max_examples, module.max_tokens = limits
    return module


@of_every(SEPARATE_TERMS)
def test_cutting_moves_neither_gradient_nor_metric(task: str, term: str) -> None:
    module = distillation(task, term)
    expected, expected_metrics = one_step(module, batch(task))
    for name, limits in cuts(term).items():
        found, metrics = one_step(cut_into(module, limits), batch(task))
        assert relative_difference(found, expected) <= TOLERANCE, name
        assert metrics == pytest.approx(expected_metrics, rel=1e-4, abs=1e-6), name


@of_every(SEPARATE_TERMS)
def test_the_comparison_finds_an_average_of_averages(task: str, term: str) -> None:
    expected, _ = one_step(distillation(task, term), batch(task))
    wrong = distillation(task, term, kind=AverageOfAverages)
    assert relative_difference(one_step(wrong, batch(task))[0], expected) <= TOLERANCE, "alike until the batch is cut"
    wrong.num_pieces = 4
    found, _ = one_step(cut_into(wrong, CUTS["5 5 5 1"]), batch(task))
    assert relative_difference(found, expected) > 1000 * TOLERANCE


@of_every(TERM_NAMES, TEXT_TASKS)
def test_padding_moves_no_gradient(task: str, term: str) -> None:
    module = distillation(task, term)
    memory = copy.deepcopy(module.objective.state_dict())
    expected, _ = one_step(module, batch(task))
    for padding in paddings(term):
        for limits in (WHOLE,) if term in COUPLED_TERMS else (WHOLE, CUTS["40 tokens"]):
            module.objective.load_state_dict(memory)
            found, _ = one_step(cut_into(module, limits), batch(task, **padding))
            assert relative_difference(found, expected) <= TOLERANCE, (padding, limits)


@of_every(COUPLED_TERMS)
def test_what_would_cut_a_batch_is_refused_for_coupled_rows(task: str, term: str) -> None:
    config = typed(composed("train", ["loss=kd"]), TrainConfig)
    data: Any = SimpleNamespace(
        train_dataloader=lambda: [batch(task)], batches_per_epoch=1, num_examples=lambda _split: NUM_EXAMPLES
    )
    models = Models(model(task, seed=1, hidden_size=8), LiveTeacher(model(task), TASKS[task], None))
    parts = Source(TASKS[task], data, None, None), models, objective(task, term)

    def assert_refused(key: str, config: TrainConfig, num_ranks: int) -> None:
        with pytest.raises(UserError, match=rf"loss\.term\.{term} compares") as caught:
            make_module(config, *parts, num_ranks)
        assert caught.value.key == key

    for limit in ("micro_batch_examples", "micro_batch_tokens"):  # 1024 cuts no batch of this size: a larger one
        hardware = dataclasses.replace(config.hardware, **{limit: 1024})
        assert_refused(f"hardware.{limit}", dataclasses.replace(config, hardware=hardware), num_ranks=1)
    assert_refused("hardware.devices", config, num_ranks=2)
    one_step(make_module(config, *parts), batch(task))


def test_models_of_different_widths_are_related_without_a_comparison_of_columns() -> None:
    task = "text_classification"
    module = distillation(task, "rkd_distance", teacher=model(task, num_labels=7))
    _, metrics = one_step(module, batch(task))
    assert metrics["train/teacher_entropy"] > 0.0
    assert not {"train/kl", "train/agreement"} & metrics.keys()


def test_a_global_batch_of_too_many_triples_is_refused_though_its_sample_passes() -> None:
    task = "causal_lm"
    long = causal_batch([[5 + n % 40 for n in range(100)]] * 16, [0] * 16)
    data: Any = SimpleNamespace(train_dataloader=lambda: [long], batches_per_epoch=1, num_examples=lambda _split: 16)
    models = Models(model(task, seed=1, hidden_size=8, num_labels=2), LiveTeacher(model(task), TASKS[task], None))
    config = typed(composed("train", ["loss=kd"]), TrainConfig)
    with pytest.raises(UserError, match="the 1,584 rows of a batch"):
        make_module(config, Source(TASKS[task], data, None, None), models, objective(task, "rkd_angle"))


def test_a_memory_of_examples_refuses_those_of_several_texts() -> None:
    with pytest.raises(UserError, match="these have 3 texts each") as caught:
        distillation("embedding", "crd")
    assert caught.value.key == "loss.term.crd"


@pytest.mark.parametrize("term", sorted(SCORE_TERMS))
def test_scores_under_a_causal_mask_are_refused(term: str) -> None:
    with pytest.raises(UserError, match=r"\(GPT2LMHeadModel\), whose attention is not.*\n.*minilm_v2") as caught:
        distillation("causal_lm", term)
    assert caught.value.key == f"loss.term.{term}"


@of_every(term for term in TEACHER_TERMS if term not in HARD_TARGET_TERMS | CONTRASTIVE_TERMS)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(task: str, term: str) -> None:
    for temperature in (1.0, 2.0, 4.0) if term in TEMPERED_TERMS else (None,):
        teacher = model(task)
        module = distillation(
            task,
            term,
            student=twin(teacher),
            teacher=teacher,
            term_options={} if temperature is None else {"temperature": temperature},
            max_examples=None if term in COUPLED_TERMS else 5,
        )
        expected = least(module.objective.terms[term], module.step_of(batch(task)))
        gradients, metrics = one_step(module, batch(task))
        assert metrics["train/loss"] == pytest.approx(expected, rel=1e-6, abs=2e-6), temperature
        assert metrics.get("train/agreement", 1.0) == pytest.approx(1.0)
        assert max(float(value.abs().max()) for value in gradients.values()) <= 1e-6, temperature


@of_every(term for term in TEACHER_TERMS if term not in CONTRASTIVE_TERMS)
def test_a_teacher_that_answers_for_other_examples_raises_the_loss(task: str, term: str) -> None:
    teacher = model(task)
    student = twin(teacher)
    options: dict[str, Any] = {"term_options": {"weight": WEIGHTS[term]}} if term in WEIGHTS else {}
    _, metrics = one_step(distillation(task, term, student=student, teacher=teacher, **options), batch(task))
    shuffled = NextExamples(LiveTeacher(teacher, TASKS[task], None))
    _, others = one_step(distillation(task, term, student=student, teacher=shuffled, **options), batch(task))
    assert others["train/loss"] > metrics["train/loss"] + 1e-3
