from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from potstill.errors import UserError
from potstill.losses.response_terms import CTKD
from potstill.losses.schedules import Schedule, without_schedules
from potstill.losses.terms import CrossEntropy, ForwardKL
from potstill.objective import Objective

from .registry import count_rows, make_step

KEY = "loss.term.kd"


def schedule_of(node: Any) -> Schedule:
    _, schedules = without_schedules({"temperature": node}, KEY)
    return schedules["temperature"]


def refusal(node: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        schedule_of(node)
    return caught.value


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"schedule": "constant", "start": 4.0}, [4.0, 4.0, 4.0, 4.0]),
        ({"schedule": "linear", "start": 8.0, "end": 4.0, "steps": 4}, [8.0, 7.0, 6.0, 4.0]),
        ({"schedule": "linear", "start": 8.0, "end": 4.0, "steps": None}, [8.0, 7.5, 7.0, 4.4]),
        ({"schedule": "cosine", "start": 8.0, "end": 4.0, "steps": 4}, [8.0, 6.0 + math.sqrt(2), 6.0, 4.0]),
        ({"schedule": "warm_up", "end": 4.0, "steps": 4}, [0.0, 1.0, 2.0, 4.0]),
    ],
)
def test_a_schedule_goes_from_its_start_to_its_end_and_stays(node: Any, expected: list[float]) -> None:
    schedule = schedule_of(node)
    assert [schedule.at(step, 8) for step in (0, 1, 2)] == pytest.approx(expected[:3])
    if node["schedule"] != "constant" and node["steps"] is None:
        assert schedule.at(8, 8) == schedule.at(9, 8) == pytest.approx(4.0)
    else:
        assert schedule.at(4, 8) == schedule.at(7, 8) == pytest.approx(expected[3])


def test_a_misspelt_schedule_is_refused_with_the_nearest() -> None:
    error = refusal({"schedule": "cosin", "start": 1.0, "end": 2.0})
    assert (error.key, error.value) == (f"{KEY}.temperature.schedule", "cosin")
    assert "'cosine'" in error.fix


@pytest.mark.parametrize(
    ("node", "key"),
    [
        ({"schedule": "linear", "start": 1.0, "stop": 2.0}, "stop"),
        ({"start": 1.0, "end": 2.0}, "schedule"),
        ({"schedule": "linear", "start": 1.0}, "end"),
        ({"schedule": "linear", "end": 1.0}, "start"),
        ({"schedule": "linear", "start": "high", "end": 1.0}, "start"),
        ({"schedule": "linear", "start": 2.0, "end": True}, "end"),
        ({"schedule": "linear", "start": 2.0, "end": 1.0, "steps": 0}, "steps"),
        ({"schedule": "linear", "start": 2.0, "end": 1.0, "steps": 1.5}, "steps"),
        ({"schedule": "warm_up", "start": 2.0, "end": 1.0}, "start"),
    ],
)
def test_what_is_no_schedule_is_refused_under_its_key(node: Any, key: str) -> None:
    assert refusal(node).key == f"{KEY}.temperature.{key}"


def test_a_constant_that_would_change_is_refused() -> None:
    assert refusal({"schedule": "constant", "start": 2.0, "end": 1.0}).key == f"{KEY}.temperature"


@pytest.mark.parametrize("ends", [(1.0, 0.0), (-1.0, 1.0), (math.inf, 1.0)])
def test_a_schedule_with_an_end_that_the_term_does_not_take_is_refused(ends: tuple[float, float]) -> None:
    term = ForwardKL(temperature=2.0)
    with pytest.raises(UserError) as caught:
        Objective({"kd": term}, {"kd": {"temperature": Schedule("linear", *ends, steps=None)}})
    assert caught.value.key == "loss.term.kd.temperature"
    assert caught.value.value in ends


def test_the_terms_have_the_options_of_the_step_that_begins_whatever_came_before() -> None:
    """A counter would give a run that goes on at step 6 the first value."""
    schedules = {"ce": {"weight": Schedule("warm_up", 0.0, 2.0, 4)}, "kd": {"temperature": Schedule("linear", 8, 4, 8)}}
    objective, step = Objective({"ce": CrossEntropy(), "kd": ForwardKL()}, schedules), make_step()
    for number, weight, temperature in ((6, 2.0, 5.0), (1, 0.5, 7.5), (6, 2.0, 5.0)):
        found = objective.begin_step(number, num_steps=100)
        assert found == pytest.approx({"weight/ce": weight, "temperature/kd": temperature})
        fixed = Objective({"ce": CrossEntropy(weight=weight), "kd": ForwardKL(temperature=temperature)})
        assert torch.equal(objective(step, count_rows(step))[0], fixed(step, count_rows(step))[0])


def test_a_scheduled_start_stands_before_the_first_step() -> None:
    options, schedules = without_schedules({"temperature": {"schedule": "linear", "start": 8, "end": 4}}, KEY)
    assert options == {"temperature": 8.0}
    term = ForwardKL(**options)
    Objective({"kd": term}, {"kd": schedules})
    assert term.temperature == 8.0


def test_the_learned_temperature_climbs_while_the_student_descends() -> None:
    """Without the reversal, the temperature would be the one that is easiest to imitate."""
    step, term = make_step(dtype=torch.float32), CTKD()
    objective = Objective({"ctkd": term})

    def loss(reversal: float) -> float:
        objective.zero_grad()
        term.reversal = reversal
        value = objective(step, count_rows(step))[0]
        value.backward()
        return value.item()

    value = loss(0.0)
    assert term.parameter.grad is not None
    assert term.parameter.grad.item() == 0.0, "the temperature stands still at first"
    loss(1.0)
    follows = -1e-2 * term.parameter.grad.sign()  # a step of an optimizer, which minimises
    with torch.no_grad():
        term.parameter.add_(follows)
    assert loss(1.0) > value
    assert step.student_logits is not None
    assert step.student_logits.grad is not None
    with torch.no_grad():
        term.parameter.sub_(follows)
        step.student_logits -= 1e-3 * step.student_logits.grad.sign()
    assert loss(1.0) < value


def test_the_reversal_scales_the_gradient_of_the_temperature_alone() -> None:
    step, term = make_step(dtype=torch.float32), CTKD()
    gradients = []
    for reversal in (1.0, 0.25):
        term.reversal = reversal
        loss = Objective({"ctkd": term})(step, count_rows(step))[0]
        gradients.append(torch.autograd.grad(loss, [term.parameter, step.student_logits]))  # type: ignore[list-item]
    torch.testing.assert_close(gradients[1][0], 0.25 * gradients[0][0])
    assert torch.equal(gradients[1][1], gradients[0][1])


def test_the_learned_temperature_is_forward_kl_at_its_value_and_is_reported() -> None:
    step, term = make_step(), CTKD()
    objective = Objective({"ctkd": term})
    assert objective.report() == {}
    value = objective(step, count_rows(step))[0]
    temperature = objective.report()["temperature/ctkd"].item()
    assert temperature == pytest.approx(1.0 + 20.0 / (1.0 + math.exp(-1.0)))
    fixed = Objective({"kd": ForwardKL(temperature=temperature)})(step, count_rows(step))[0]
    assert value.item() == pytest.approx(fixed.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"min_temperature": 0.0}, "min_temperature"),
        ({"max_temperature": 1.0}, "max_temperature"),
        ({"initial": math.inf}, "initial"),
        ({"reversal": -1.0}, "reversal"),
    ],
)
def test_bounds_that_cannot_be_are_refused(options: Any, key: str) -> None:
    with pytest.raises(UserError) as caught:
        Objective({"ctkd": CTKD(**options)})
    assert caught.value.key == f"loss.term.ctkd.{key}"
