"""A student against its teacher: what was kept, and which of the teacher's errors are repeated."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from potstill.data.batch import IGNORE, Batch
from potstill.evaluation.bar import BarConfig
from potstill.evaluation.evaluate import EvaluationSet, ModelUnderTest, judge
from potstill.evaluation.fidelity import against_teacher, copied_errors, error_table
from potstill.evaluation.predict import predict_all
from potstill.losses.divergence import forward_kl

from .echo import IMAGES, Echo, scores

LABEL = np.array([0, 0, 0, 0, 0, 0, 0, IGNORE])
TEACHER = scores(np.array([0, 0, 0, 1, 1, 1, 2, 1]), LABEL)
STUDENT = scores(np.array([0, 0, 1, 0, 1, 1, 1, 1]), LABEL)


def test_every_labelled_row_is_in_one_cell() -> None:
    assert error_table(TEACHER, STUDENT) == {
        "both_right": 2,
        "only_teacher_right": 1,
        "only_model_right": 1,
        "both_wrong_alike": 2,
        "both_wrong_apart": 1,
    }


def test_copied_errors_are_those_with_the_teachers_own_answer() -> None:
    found = copied_errors(TEACHER, STUDENT)
    assert (found["value"], found["n"]) == (0.5, 4)
    assert found["interval"][0] < 0.5 < found["interval"][1]


def test_a_teacher_without_errors_has_none_to_copy() -> None:
    right = scores(np.zeros(8, dtype=int), LABEL)
    assert copied_errors(right, STUDENT)["n"] == 0
    assert np.isnan(copied_errors(right, STUDENT)["value"])


def test_retention_has_an_interval_over_items() -> None:
    random = np.random.default_rng(0)
    label = np.zeros(400, dtype=int)
    teacher, student = (scores((random.random(400) > rate).astype(int), label) for rate in (0.9, 0.8))
    values = [float(each.right.mean()) for each in (student, teacher)]
    found = against_teacher(teacher, student, "accuracy", *values)
    low, high = found["retention_interval"]
    assert found["retention"] == pytest.approx(values[0] / values[1])
    assert low < found["retention"] < high
    assert high - low < 0.2


def test_divergence_overlap_and_entropy_are_those_of_the_distributions() -> None:
    logits = [torch.randn(4, 12, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    batch = Batch({"pixel_values": torch.zeros(4, 12)}, torch.zeros(4, dtype=torch.long), tuple("abcd"))
    models = {name: ModelUnderTest(Fixed(each)) for name, each in zip(("teacher", "student"), logits, strict=True)}
    found = predict_all(models, [batch], IMAGES)["student"]
    p, q = (each.double().softmax(-1) for each in logits)
    np.testing.assert_allclose(found.kl, (p * (p / q).log()).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(found.entropy, -(q * q.log()).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(found.confidence, q.amax(-1), rtol=1e-5)
    shared = [len(set(first.tolist()) & set(second.tolist())) for first, second in zip(*top5(p, q), strict=True)]
    assert found.top5.tolist() == [number / 5 for number in shared]


def top5(*distributions: torch.Tensor) -> list[torch.Tensor]:
    return [each.topk(5).indices for each in distributions]


class Fixed(Echo):
    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, pixel_values):
        output = super().forward(pixel_values)
        output.logits = self.logits
        return output


NUM_POINTS = 1200


class Rule(Echo):
    """A teacher of points: five nats for the class it was taught."""

    def __init__(self, taught: torch.Tensor) -> None:
        super().__init__()
        self.taught = taught

    def forward(self, pixel_values):
        return SimpleNamespace(logits=5.0 * torch.eye(3)[self.taught] + 0 * pixel_values.sum())


class Small(nn.Sequential):
    def forward(self, pixel_values):
        return SimpleNamespace(logits=super().forward(pixel_values))


def trained_on(points: torch.Tensor, logits: torch.Tensor) -> Small:
    torch.manual_seed(0)
    student = Small(nn.Linear(2, 48), nn.Tanh(), nn.Linear(48, 3))
    optimizer = torch.optim.Adam(student.parameters(), lr=0.03)
    for _ in range(400):
        optimizer.zero_grad()
        forward_kl(student(points).logits, logits).mean().backward()
        optimizer.step()
    return student.requires_grad_(False)


def test_errors_copied_from_a_teacher_that_was_taught_wrong_show_in_that_slice() -> None:
    """A tenth of slice a was labelled wrongly, by a pattern; three in a hundred everywhere are wrong by chance."""
    random = torch.Generator().manual_seed(0)
    points = 2 * torch.rand(NUM_POINTS, 2, generator=random) - 1
    gold = (points[:, 1] > -0.3).long() + (points[:, 1] > 0.4).long()
    in_a, by_chance = points[:, 0] < 0, torch.rand(NUM_POINTS, generator=random) < 0.03
    flipped = in_a & (points[:, 1] > 0.8)  # a tenth of the height of a
    taught = torch.where(flipped | by_chance, (gold + 1) % 3, gold)
    batch = Batch({"pixel_values": points}, gold, tuple(map(str, range(NUM_POINTS))))
    data = EvaluationSet([batch], "", {"part": ["a" if each else "b" for each in in_a]})
    rates, overall = {}, {}
    for name, target in (("distilled", taught), ("on gold", gold)):
        student = trained_on(points, 5.0 * torch.eye(3)[target])
        models = {"teacher": ModelUnderTest(Rule(taught)), "student": ModelUnderTest(student)}
        report = judge(models, data, IMAGES, BarConfig(name="x", copied_errors=0.4)).report
        slices = report["models"]["student"]["slices"]
        rates[name] = {part: slices[f"part={part}"]["against_teacher"]["copied_errors"]["value"] for part in "ab"}
        overall[name] = next(gate["outcome"] for gate in report["gates"] if gate["name"] == "copied_errors")
    assert rates["distilled"]["a"] > 0.6, rates
    assert rates["on gold"]["a"] < 0.2, rates
    assert rates["distilled"]["b"] < 0.2, "errors by chance are no pattern to learn"
    assert overall == {"distilled": "fail", "on gold": "pass"}
