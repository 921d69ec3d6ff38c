from __future__ import annotations

import copy
import functools
import math
from typing import Any

import pytest
import torch

import potstill.module
from potstill.data.batch import IGNORE, Batch
from potstill.errors import DivergedError
from potstill.faults import some
from potstill.models.forward import forward
from potstill.models.task import TASKS
from potstill.optimisation import schedule_of
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, Signal
from tests.integration.distil import LOGIT_TASKS, batch, distillation, fit, loader, model, one_step

TASK = "text_classification"
LOGGED = {
    "train/loss",
    "train/term/ce",
    "train/term/kd",
    "train/lr",
    "train/grad_norm",
    "train/teacher_entropy",
    "train/kl",
    "train/agreement",
}


class Spoilt:
    """A teacher that gives NaN for the second row of one of its calls."""

    def __init__(self, source: LiveTeacher, call: int) -> None:
        self.source, self.model, self.calls_left = source, source.model, call

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        signal = self.source.signal(batch, needs)
        self.calls_left -= 1
        if self.calls_left == 0 and signal.logits is not None:
            signal.logits[1] = math.nan
        return signal

    def to(self, device: torch.device) -> Spoilt:
        self.source.to(device)
        return self


def spoil_gradient(module: Any, value: float) -> None:
    weight = module.student.classifier.weight
    weight.register_hook(lambda gradient: torch.full_like(gradient, value))


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


@pytest.mark.parametrize("task", LOGIT_TASKS)
def test_every_step_logs_loss_terms_rate_norm_and_the_teacher(task: str) -> None:
    module = distillation(task, "ce", "kd", max_examples=5)
    for term, weight in {"ce": 0.3, "kd": 2.0}.items():
        module.objective.terms[term].weight = weight
    gradients, metrics = one_step(module, batch(task))
    assert metrics.keys() == LOGGED
    assert all(math.isfinite(value) for value in metrics.values())
    weighted = 0.3 * metrics["train/term/ce"] + 2.0 * metrics["train/term/kd"]
    assert metrics["train/loss"] == pytest.approx(weighted, rel=1e-5)
    norm = torch.cat([value.flatten() for value in gradients.values()]).norm()
    assert metrics["train/grad_norm"] == pytest.approx(float(norm), rel=1e-5)


def test_a_step_that_is_not_logged_computes_no_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    module, counted = distillation(TASK, "kd", num_steps=8), []
    monkeypatch.setattr(potstill.module, "diagnose", lambda *_: counted.append(module.global_step) or {})
    fit(module, [batch(TASK)] * 8, log_every_n_steps=3)
    assert counted == [2, 5, 7], "every third, and the last"


def test_without_a_teacher_nothing_is_said_of_one() -> None:
    assert one_step(distillation(TASK, "ce"), batch(TASK))[1].keys() == {
        "train/loss",
        "train/term/ce",
        "train/lr",
        "train/grad_norm",
    }


def test_what_is_logged_of_the_teacher_is_about_this_batch_and_student() -> None:
    module, task = distillation(TASK, "kd"), TASKS[TASK]
    _, metrics = one_step(module, batch(TASK))
    needs = Needs(logits=True)
    with torch.no_grad():
        student_NC = forward(module.student, batch(TASK), task, needs).logits
    teacher_NC = module.teacher.signal(batch(TASK), needs).logits
    assert student_NC is not None
    agreement = (student_NC.argmax(dim=-1) == teacher_NC.argmax(dim=-1)).float().mean()
    entropy = torch.distributions.Categorical(logits=teacher_NC).entropy().mean()
    assert metrics["train/agreement"] == pytest.approx(float(agreement))
    assert metrics["train/teacher_entropy"] == pytest.approx(float(entropy), rel=1e-5)


@pytest.mark.parametrize("clip_norm", [0.01, 1000.0, None])
def test_clipping_limits_the_step_and_logs_the_norm_before(clip_norm: float | None) -> None:
    module = distillation(TASK, "kd", lr=1.0, clip_norm=clip_norm)
    before = weights(module)
    _, metrics = one_step(module, batch(TASK))
    after = weights(module)
    moved = torch.cat([(after[name] - before[name]).flatten() for name in before]).norm()
    assert metrics["train/grad_norm"] > 0.1
    assert float(moved) == pytest.approx(min(metrics["train/grad_norm"], clip_norm or math.inf), rel=1e-3)


def test_gradients_of_one_step_do_not_leak_into_the_next() -> None:
    module = distillation(TASK, "kd")
    norms = [one_step(module, batch(TASK))[1]["train/grad_norm"] for _ in range(2)]
    trainer = fit(module, [batch(TASK)] * 3)
    assert trainer.global_step == 3
    assert float(trainer.callback_metrics["train/grad_norm"]) == pytest.approx(norms[0])


def test_the_rate_follows_the_schedule_once_a_step_and_not_once_a_micro_batch() -> None:
    module = distillation(TASK, "kd", lr=1.0, max_examples=4)
    module.make_schedule = functools.partial(schedule_of, name="linear", warmup_fraction=0.0, num_steps=4)
    trainer = fit(module, [batch(TASK)] * 3)
    assert float(trainer.callback_metrics["train/lr"]) == pytest.approx(0.5)


def test_teacher_is_in_eval_mode_unchanged_and_out_of_the_optimizer() -> None:
    teacher = model(TASK).train()
    before = copy.deepcopy(teacher.state_dict())
    module = distillation(TASK, "ce", "kd", "hidden_mse", teacher=teacher, lr=0.1)
    trainer = fit(module, [batch(TASK)] * 3)
    optimised = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    assert not optimised & {id(parameter) for parameter in teacher.parameters()}
    assert optimised == {id(parameter) for parameter in module.parameters()}
    assert not any(each.training for each in teacher.modules())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_step_lowers_the_loss_of_its_batch() -> None:
    module = distillation(TASK, "ce", "kd", "hidden_mse", lr=0.01)
    first = one_step(module, batch(TASK))[1]["train/loss"]
    assert one_step(module, batch(TASK))[1]["train/loss"] < first


def test_validation_weighs_examples_and_not_micro_batches_and_leaves_the_unlabelled_out() -> None:
    module, task, whole = distillation(TASK, "kd", max_examples=5), TASKS[TASK], batch(TASK)
    trainer = fit(module, [whole], limit_val_batches=1.0)
    [found] = trainer.validate(module, loader([whole, whole]), verbose=False)
    module.student.eval()
    with torch.no_grad():
        logits_NC = forward(module.student, whole, task, Needs(logits=True)).logits
    assert logits_NC is not None
    gold = whole.labels != IGNORE
    assert 0 < int(gold.sum()) < len(whole)
    expected = torch.nn.functional.cross_entropy(logits_NC[gold], whole.labels[gold])
    assert found["val/loss"] == pytest.approx(float(expected), rel=1e-5)
    hits = logits_NC[gold].argmax(dim=-1) == whole.labels[gold]
    assert found["val/accuracy"] == pytest.approx(float(hits.float().mean()))


def test_preparing_changes_neither_weights_nor_mode() -> None:
    module = distillation(TASK, "kd")
    before = weights(module.student)
    module.prepare(batch(TASK))
    assert module.student.training
    assert all(torch.equal(value, before[name]) for name, value in weights(module.student).items())
    assert all(parameter.grad is None for parameter in module.student.parameters())


def test_a_batch_without_any_label_leaves_the_other_terms_to_train() -> None:
    whole = batch(TASK)
    unlabelled = Batch(whole.inputs, torch.full_like(whole.labels, IGNORE), whole.keys)
    module = distillation(TASK, "ce", "kd", max_examples=5)
    _, metrics = one_step(module, unlabelled)
    assert metrics["train/term/ce"] == 0.0
    assert metrics["train/loss"] == pytest.approx(metrics["train/term/kd"])
    assert metrics["train/term/kd"] > 0.0


def test_a_loss_that_is_not_finite_stops_at_once_and_says_where() -> None:
    whole = batch(TASK)
    # prepared with two calls; third step, piece two
    teacher = Spoilt(LiveTeacher(model(TASK), TASKS[TASK], None), call=2 + 2 * 4 + 2)
    module = distillation(TASK, "ce", "kd", teacher=teacher, max_examples=4)
    before = weights(module)
    with pytest.raises(DivergedError, match=r"After 2 optimizer steps loss\.term\.kd is not finite: rows 1,") as caught:
        fit(module, [whole] * 3)
    assert all(key in str(caught.value) for key in whole.keys[4:8])
    assert not any(key in str(caught.value) for key in whole.keys[8:])
    assert all(torch.equal(value, before[name]) for name, value in weights(module).items())


@pytest.mark.parametrize("max_skipped", [1, 3])
def test_a_step_that_is_skipped_changes_nothing_and_is_counted(max_skipped: int) -> None:
    teacher = Spoilt(LiveTeacher(model(TASK), TASKS[TASK], None), call=2 + 1)
    module = distillation(TASK, "kd", teacher=teacher, lr=0.1, on_nonfinite="skip", max_skipped=max_skipped)
    before = weights(module)
    trainer = fit(module, [batch(TASK)])
    assert all(torch.equal(value, before[name]) for name, value in weights(module).items())
    assert trainer.callback_metrics["train/skipped_steps"] == module.num_skipped == 1
    fit(module, [batch(TASK)])
    assert any(not torch.equal(value, before[name]) for name, value in weights(module).items())
    assert module.num_skipped == 1


def test_one_skipped_step_too_many_stops() -> None:
    module = distillation(TASK, "kd", on_nonfinite="skip", max_skipped=2)
    spoil_gradient(module, math.nan)
    with pytest.raises(DivergedError, match="After 2 optimizer steps"):
        fit(module, [batch(TASK)] * 5)
    assert module.num_skipped == 3


def test_a_limit_of_skips_means_nothing_where_none_are_allowed() -> None:
    module = distillation(TASK, "kd", on_nonfinite="stop", max_skipped=10)
    spoil_gradient(module, math.inf)
    with pytest.raises(DivergedError, match="After 0 optimizer steps"):
        fit(module, [batch(TASK)])


def test_a_gradient_that_is_not_finite_is_told_by_its_parameter_and_its_term() -> None:
    module = distillation(TASK, "kd")
    spoil_gradient(module, math.nan)
    with pytest.raises(DivergedError, match=r"is not finite: student\.classifier\.weight; from loss\.term\.kd"):
        fit(module, [batch(TASK)])


def test_a_norm_that_overflows_over_finite_gradients_is_called_that() -> None:
    module = distillation(TASK, "kd")
    spoil_gradient(module, 1e25)
    with pytest.raises(DivergedError, match="its norm overflows"):
        fit(module, [batch(TASK)])


def test_the_examples_of_a_broken_loss_do_not_fill_the_screen() -> None:
    assert some(tuple("abc")) == "a, b, c"
    assert some(tuple("abcdefghijkl")).endswith("i, j and 2 more")


def test_a_term_with_a_memory_learns_from_each_step() -> None:
    module = distillation("image_classification", "crd")
    bank = module.objective.terms["crd"].bank
    before = bank.student.clone()
    one_step(module, batch("image_classification"))
    assert (bank.student != before).any(dim=1).all()
