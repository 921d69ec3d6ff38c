"""A language model's step with its logits made a chunk at a time, against the step that has them all."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from potstill.losses.fused import Options
from potstill.losses.products import Products
from potstill.losses.row_terms import row_terms
from potstill.models.output_layer import output_layer
from tests.losses.registry import LOGIT_TERMS, SCORE_TERMS, make_term
from tests.models.tiny import tiny_model

from .distil import batch, distillation, model, one_step, relative_difference

TASK = "causal_lm"
FEW_ROWS = Options(chunk_bytes=2**12)
FUSED_TERMS = [name for name in LOGIT_TERMS if row_terms({name: make_term(name)}) and name not in SCORE_TERMS]
KEPT_WHOLE = [name for name in LOGIT_TERMS if name not in FUSED_TERMS]
QUICK = {"ce", "kd", "jsd", "dkd"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.thorough) for name in FUSED_TERMS]
)
def test_no_term_notices_that_its_logits_come_in_chunks(name: str) -> None:
    found, metrics = one_step(_checked(distillation(TASK, name, fusing=FEW_ROWS)), batch(TASK))
    expected, expected_metrics = one_step(distillation(TASK, name, fusing=None), batch(TASK))
    assert relative_difference(found, expected) <= 1e-5
    assert metrics == pytest.approx(expected_metrics, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("limits", [(4, None), (None, 40)], ids=["examples", "tokens"])
def test_neither_cuts_nor_padding_nor_a_term_beside_change_it(limits: tuple[int | None, int | None]) -> None:
    names = ("ce", "kd", "hidden_mse")
    expected, expected_metrics = one_step(distillation(TASK, *names, fusing=None), batch(TASK))
    max_examples, max_tokens = limits
    cut = distillation(TASK, *names, fusing=FEW_ROWS, max_examples=max_examples, max_tokens=max_tokens)
    found, metrics = one_step(_checked(cut), batch(TASK, left=2, right=5))
    assert relative_difference(found, expected) <= 1e-5
    assert metrics == pytest.approx(expected_metrics, rel=1e-4, abs=1e-6)


def test_the_fast_mode_is_another_precision_of_the_same_loss() -> None:
    losses = []
    for dtype in (torch.bfloat16, torch.float32):
        _, metrics = one_step(distillation(TASK, "ce", "kd", fusing=Options(logits_dtype=dtype)), batch(TASK))
        losses.append(metrics["train/loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_a_model_first_met_in_a_step_is_asked_without_its_taps() -> None:
    """To be asked, it runs on one token: what its layers say then is no signal."""
    module = distillation(TASK, "ce", "hidden_mse")
    module.student = copy.deepcopy(module.student)
    step = module.step_of(batch(TASK))
    assert all(len(states) == int(step.lengths.sum()) for states in step.student_hidden.values())


def test_each_terms_own_gradient_is_measured_as_well() -> None:
    norms = []
    for fusing in (FEW_ROWS, None):
        module = distillation(TASK, "ce", "kd", fusing=fusing)
        module.measures_terms = True
        _, metrics = one_step(module, batch(TASK))
        norms.append({name: value for name, value in metrics.items() if "grad_norm/" in name or "train/kl" in name})
    assert len(norms[0]) == 3
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_a_fault_is_found_in_its_term_and_rows() -> None:
    module = distillation(TASK, "ce", "kd", fusing=FEW_ROWS)
    step = module.step_of(batch(TASK))
    assert step.teacher_head is not None
    step.teacher_head.hidden[3] = torch.nan
    assert str(module.objective.find_fault(step)) == "loss.term.kd is not finite: rows 3"


@pytest.mark.parametrize("name", [name for name in KEPT_WHOLE if name in ("ctkd", "dist_intra")])
def test_a_term_that_sees_all_rows_gets_all_logits(name: str) -> None:
    module = distillation(TASK, "ce", name)
    assert not module.fuses
    assert module.step_of(batch(TASK)).student_logits is not None


def test_no_logits_are_made_before_the_loss_wants_them() -> None:
    step = distillation(TASK, "ce", "kd").step_of(batch(TASK))
    assert step.student_logits is step.teacher_logits is None
    assert step.student_head is not None
    assert len(step.student_head) == len(step.labels)


def test_a_soft_cap_is_asked_of_the_model_and_kept() -> None:
    student, teacher = (tiny_model("gemma2", TASK, seed=seed).train() for seed in (1, 0))
    layer = output_layer(student)
    assert layer is not None
    assert layer.head.soft_cap == student.config.final_logit_softcapping
    parts: dict[str, Any] = {"student": student, "teacher": teacher}
    found, metrics = one_step(_checked(distillation(TASK, "ce", "kd", fusing=FEW_ROWS, **parts)), batch(TASK))
    expected, expected_metrics = one_step(distillation(TASK, "ce", "kd", fusing=None, **parts), batch(TASK))
    assert relative_difference(found, expected) <= 1e-5
    assert metrics == pytest.approx(expected_metrics, rel=1e-5, abs=1e-6)


def test_a_layer_that_is_more_than_a_product_is_left_alone() -> None:
    class Adapted(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + input.sum(dim=-1, keepdim=True)

    student = model(TASK, seed=1, hidden_size=8)
    head: Any = student.get_output_embeddings()
    student.set_output_embeddings(Adapted(head.in_features, head.out_features, bias=False))
    assert output_layer(student) is None
    assert not distillation(TASK, "ce", student=student).fuses


class LowRankLayer(torch.nn.Module):
    """As PEFT has it: the layer, frozen, and two thin ones."""

    active_adapters = ("a",)
    merged = False

    def __init__(self, base: torch.nn.Linear, factor: float = 1.0) -> None:
        super().__init__()
        self.base_layer, self.factor = base.requires_grad_(False), factor
        down, up = torch.nn.Linear(base.in_features, 2, bias=False), torch.nn.Linear(2, base.out_features, bias=False)
        self.lora_A, self.lora_B = torch.nn.ModuleDict({"a": down}), torch.nn.ModuleDict({"a": up})
        self.lora_dropout, self.scaling = torch.nn.ModuleDict({"a": torch.nn.Dropout(0.5)}), {"a": 0.7}

    @property
    def weight(self) -> torch.Tensor:
        return self.base_layer.weight

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        low = self.lora_A["a"](self.lora_dropout["a"](rows))
        return self.base_layer(rows) + self.factor * self.scaling["a"] * self.lora_B["a"](low)


def adapted(factor: float = 1.0) -> Any:
    """A student of which the low-rank part of its head alone is trained."""
    student = tiny_model("llama", TASK, seed=1).train().requires_grad_(False)
    torch.manual_seed(2)
    student.set_output_embeddings(LowRankLayer(student.get_output_embeddings(), factor))  # type: ignore[arg-type]
    return student


def test_a_low_rank_head_is_fused_and_its_weight_costs_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Products, "add_weight_gradient", lambda *_: pytest.fail("a gradient that nobody asked for"))
    found, metrics = one_step(_checked(distillation(TASK, "ce", "kd", fusing=FEW_ROWS, student=adapted())), batch(TASK))
    expected, dense = one_step(distillation(TASK, "ce", "kd", fusing=None, student=adapted()), batch(TASK))
    assert {name.split(".")[-3] for name in found} == {"lora_A", "lora_B"}
    assert relative_difference(found, expected) <= 1e-5
    assert metrics == pytest.approx(dense, rel=1e-5, abs=1e-6)


def test_a_layer_that_does_more_than_its_low_rank_parts_is_left_alone() -> None:
    assert output_layer(adapted()) is not None
    assert output_layer(adapted(factor=1.1)) is None


def test_a_trained_part_that_has_not_moved_yet_is_not_forgotten() -> None:
    student = adapted()
    layer = student.get_output_embeddings()
    layer.register_parameter("magnitude", torch.nn.Parameter(torch.ones(layer.weight.shape[0])))
    layer.register_forward_hook(lambda layer, _rows, logits: layer.magnitude * logits)
    assert output_layer(student) is None


def test_a_frozen_head_is_fused_and_costs_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Products, "add_weight_gradient", lambda *_: pytest.fail("a gradient that nobody asked for"))
    steps = []
    for fusing in (FEW_ROWS, None):
        student = tiny_model("llama", TASK, seed=1).train()
        student.get_output_embeddings().requires_grad_(False)  # type: ignore[union-attr]
        module = distillation(TASK, "ce", "kd", fusing=fusing, student=student)
        assert module.fuses == (fusing is not None)
        steps.append(one_step(module, batch(TASK))[0])
    assert "student.lm_head.weight" not in steps[0]
    assert relative_difference(*steps) <= 1e-5


def _checked(module):
    assert module.fuses
    return module
