from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from potstill.data.batch import Batch
from potstill.models.task import TASKS
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs
from potstill.signals.remembered import RememberedTeacher
from potstill.signals.several import Member, SeveralTeachers
from tests.integration.distil import NUM_LABELS, batch, distillation, model, one_step, relative_difference, twin

LOGITS = Needs(logits=True)
TASK_NAMES = ["text_classification", "causal_lm"]
TEXT = TASK_NAMES[0]


def live(task: str, seed: int, order: list[int] | None = None) -> LiveTeacher:
    return LiveTeacher(model(task, seed=seed), TASKS[task], order)


def together(task: str, combine: Any, **members: Member) -> SeveralTeachers:
    return SeveralTeachers(members, combine, TASKS[task])


def routed(task: str, *, left: int = 0) -> Batch:
    """Every third example is b's."""
    made = batch(task, left=left)
    made.routes = tuple("b" if number % 3 == 2 else "a" for number in range(len(made)))
    return made


def distilled(task: str, *terms: str, **options: Any) -> Any:
    return distillation(task, *terms, sample=routed(task), **options)


def logits(source: Any, given: Batch) -> Tensor:
    found = source.signal(given, LOGITS).logits
    assert found is not None
    return found


@pytest.mark.parametrize("combine", ["probabilities", "losses", "route"])
@pytest.mark.parametrize("task", TASK_NAMES)
def test_one_teacher_of_several_is_that_teacher_to_the_last_bit(task: str, combine: str) -> None:
    source = live(task, seed=3)
    whole = distilled(task, "ce", "kd", teacher=source, fusing=None)  # several are never asked for less than logits
    alone, alone_metrics = one_step(whole, routed(task))
    several = together(task, combine, a=Member(source, 1.0, ("a", "b")))
    found, metrics = one_step(distilled(task, "ce", "kd", teacher=several), routed(task))
    assert all(torch.equal(found[name], gradient) for name, gradient in alone.items())
    assert metrics["train/loss"] == alone_metrics["train/loss"]
    for name in ("agreement", "kl"):
        assert metrics[f"train/teacher/a/{name}"] == pytest.approx(alone_metrics[f"train/{name}"], rel=1e-6)


@pytest.mark.parametrize("terms", [("kd",), ("ce", "kd", "dkd"), ("jsd", "reverse_kl")])
@pytest.mark.parametrize("combine", ["probabilities", "losses", "route"])
@pytest.mark.parametrize("task", TASK_NAMES)
def test_equal_teachers_are_one(task: str, combine: str, terms: tuple[str, ...]) -> None:
    source = live(task, seed=3)
    alone, _ = one_step(distilled(task, *terms, teacher=source), routed(task))
    other = LiveTeacher(twin(source.model), TASKS[task], None)
    several = together(task, combine, a=Member(source, 0.3, ("a",)), b=Member(other, 0.7, ("b",)))
    found, _ = one_step(distilled(task, *terms, teacher=several, max_examples=5), routed(task))
    assert relative_difference(found, alone) <= 1e-5


def test_the_mean_is_of_probabilities_and_weighted() -> None:
    first, second = live(TEXT, seed=3), live(TEXT, seed=4)
    signal = together(TEXT, "probabilities", a=Member(first, 0.25), b=Member(second, 0.75)).signal(batch(TEXT), LOGITS)
    assert signal.logits is not None
    expected = 0.25 * logits(first, batch(TEXT)).softmax(-1) + 0.75 * logits(second, batch(TEXT)).softmax(-1)
    torch.testing.assert_close(signal.logits.softmax(-1), expected)
    assert {name: opinion.weight for name, opinion in signal.members.items()} == {"a": 0.25, "b": 0.75}


def test_the_mean_of_losses_is_weighted_and_leaves_terms_without_a_teacher_alone() -> None:
    first, second = live(TEXT, seed=3), live(TEXT, seed=4)
    several = together(TEXT, "losses", a=Member(first, 0.25), b=Member(second, 0.75))
    found = [one_step(distilled(TEXT, "ce", "kd", teacher=each), batch(TEXT))[1] for each in (first, second, several)]
    kd = [metrics["train/term/kd"] for metrics in found]
    assert kd[2] == pytest.approx(0.25 * kd[0] + 0.75 * kd[1], rel=1e-5)
    assert found[2]["train/term/ce"] == found[0]["train/term/ce"]


@pytest.mark.parametrize("task", TASK_NAMES)
def test_each_row_has_the_teacher_of_its_route(task: str) -> None:
    first, second = live(task, seed=3), live(task, seed=4)
    given = routed(task)
    several = together(task, "route", a=Member(first, 0.5, ("a",)), b=Member(second, 0.5, ("b",)))
    found = logits(several, given)
    rows = TASKS[task].scored_rows(given)
    example = torch.arange(len(given)) if rows is None else rows // given.labels.shape[1]
    is_b = torch.tensor([route == "b" for route in given.routes])[example]
    torch.testing.assert_close(found[is_b], logits(second, given)[is_b])
    torch.testing.assert_close(found[~is_b], logits(first, given)[~is_b])
    assert (logits(first, given) - logits(second, given)).abs().max() > 0.1


@pytest.mark.parametrize("combine", ["probabilities", "losses", "route"])
@pytest.mark.parametrize("task", TASK_NAMES)
def test_cuts_and_padding_move_neither_gradient_nor_what_is_logged_of_each_teacher(task: str, combine: str) -> None:
    members = {"a": Member(live(task, 3), 0.4, ("a",)), "b": Member(live(task, 4), 0.6, ("b", "unseen"))}
    module = distilled(task, "ce", "kd", teacher=together(task, combine, **members))
    expected, expected_metrics = one_step(module, routed(task))
    assert {f"train/teacher/{name}/{what}" for name in "ab" for what in ("kl", "agreement", "entropy", "rows")} <= (
        expected_metrics.keys()
    )
    module.max_examples = 2
    found, metrics = one_step(module, routed(task, left=3))
    assert relative_difference(found, expected) <= 1e-5
    assert metrics == pytest.approx(expected_metrics, rel=1e-4, abs=1e-6)


def test_what_is_logged_of_a_routed_teacher_is_the_mean_over_its_own_rows() -> None:
    first, second, given = live(TEXT, 3), live(TEXT, 4), routed(TEXT)
    several = together(TEXT, "route", a=Member(first, 0.5, ("a",)), b=Member(second, 0.5, ("b",)))
    module = distilled(TEXT, "kd", teacher=several)
    own = given.take([number for number, route in enumerate(given.routes) if route == "b"])
    _, metrics = one_step(module, given)
    alone = distilled(TEXT, "kd", student=module.student, teacher=second)
    _, expected = one_step(alone, own)
    assert metrics["train/teacher/b/rows"] == len(own) == 5
    assert metrics["train/teacher/b/kl"] == pytest.approx(expected["train/kl"], rel=1e-5)
    assert metrics["train/teacher/b/agreement"] == pytest.approx(expected["train/agreement"])


def test_a_batch_without_examples_has_no_rows_and_names_every_teacher() -> None:
    members = {"a": Member(live(TEXT, 3), 0.5, ("a",)), "b": Member(live(TEXT, 4), 0.5, ("b",))}
    for combine in ("probabilities", "route"):
        signal = together(TEXT, combine, **members).signal(routed(TEXT).empty(), LOGITS)
        assert signal.logits is not None
        assert signal.logits.shape == (0, NUM_LABELS)
        assert list(signal.members) == ["a", "b"]
    only_a = routed(TEXT).take([0, 1, 3])
    assert list(together(TEXT, "route", **members).signal(only_a, LOGITS).members) == ["a", "b"]


def test_each_teacher_has_its_own_order_of_labels() -> None:
    source = live(TEXT, seed=3)
    order = [3, 1, 0, 4, 2]
    reordered = LiveTeacher(twin(source.model), TASKS[TEXT], order)
    several = together(TEXT, "probabilities", a=Member(source, 0.5), b=Member(reordered, 0.5))
    first = logits(source, batch(TEXT)).softmax(-1)
    torch.testing.assert_close(logits(several, batch(TEXT)).softmax(-1), (first + first[:, order]) / 2)


def test_what_several_teachers_remember_is_kept_by_name() -> None:
    def made() -> SeveralTeachers:
        members = {name: Member(RememberedTeacher(live(TEXT, seed)), 0.5) for name, seed in (("a", 3), ("b", 4))}
        return together(TEXT, "probabilities", **members)

    first, other = made(), made()
    expected = logits(first, batch(TEXT))
    other.load_state_dict([first.state_dict()])
    assert other.state_dict()["a"]["keys"] == first.state_dict()["a"]["keys"] != []
    other.model.requires_grad_(False)
    for parameter in other.model.parameters():
        parameter.fill_(torch.nan)
    assert torch.equal(logits(other, batch(TEXT)), expected), "nobody was asked again"
