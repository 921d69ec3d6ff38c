from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from potstill.optimisation import clip_grad_norm, options_of, own_part, parameter_groups, schedule_of, set_options
from tests.models.tiny import tiny_model


def rates(name: str, *, warmup_fraction: float, num_steps: int = 10) -> list[float]:
    """The learning rate of each step, where the base rate is 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = schedule_of(optimizer, name, warmup_fraction=warmup_fraction, num_steps=num_steps)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*found, optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize("model_type", ["bert", "vit", "gpt2", "llama", "resnet"])
def test_weight_decay_shrinks_matrices_and_neither_norms_nor_biases(model_type: str) -> None:
    task = {"bert": "text_classification", "gpt2": "causal_lm", "llama": "causal_lm"}.get(
        model_type, "image_classification"
    )
    model = tiny_model(model_type, task)
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(parameter_groups(model, 0.5), lr=0.1).step()
    after = {name: float(parameter.detach().flatten()[0]) for name, parameter in model.named_parameters()}
    norms = [path for path, module in model.named_modules() if "norm" in type(module).__name__.lower()]
    still = {name for name in after if name.endswith(".bias") or name.rpartition(".")[0] in norms}
    assert still
    assert {name for name, value in after.items() if value == 1.0} == still
    assert all(value == pytest.approx(1.0 - 0.1 * 0.5) for name, value in after.items() if name not in still)


def test_every_trainable_parameter_is_in_one_group_and_no_frozen_one() -> None:
    model = tiny_model("gpt2", "causal_lm")
    model.get_input_embeddings().requires_grad_(False)
    groups = parameter_groups(model, 0.1)
    grouped = [parameter for group in groups for parameter in group["params"]]
    assert {id(parameter) for parameter in grouped} == {id(each) for each in model.parameters() if each.requires_grad}
    assert len(grouped) == len({id(parameter) for parameter in grouped})
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_a_model_of_matrices_alone_has_no_empty_group() -> None:
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1


@pytest.mark.parametrize("name", ["constant", "linear", "cosine"])
def test_warm_up_rises_by_equal_steps_to_the_full_rate(name: str) -> None:
    assert rates(name, warmup_fraction=0.4)[:5] == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


def test_constant_stays() -> None:
    assert rates("constant", warmup_fraction=0.0) == [1.0] * 11


def test_linear_falls_evenly_to_zero() -> None:
    assert rates("linear", warmup_fraction=0.2) == pytest.approx([0.0, 0.5, *(1 - step / 8 for step in range(9))])


def test_cosine_falls_along_half_a_wave_to_zero() -> None:
    expected = [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(9)]
    assert rates("cosine", warmup_fraction=0.2) == pytest.approx([0.0, 0.5, *expected])


def test_a_single_step_has_the_full_rate() -> None:
    assert rates("cosine", warmup_fraction=0.1, num_steps=1)[0] == 1.0


@pytest.mark.parametrize(("max_norm", "expected"), [(None, 5.0), (1.0, 1.0), (10.0, 5.0)])
def test_clipping_returns_the_norm_before_and_scales_only_down(max_norm: float | None, expected: float) -> None:
    model = nn.Linear(2, 1, bias=False)
    model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert float(clip_grad_norm(model.parameters(), max_norm)) == pytest.approx(5.0)
    assert float(model.weight.grad.norm()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize(("bad", "norm"), [(math.nan, math.nan), (math.inf, math.inf), (1e30, math.inf)])
def test_a_norm_that_is_not_finite_spoils_no_other_gradient(max_norm: float | None, bad: float, norm: float) -> None:
    model = nn.Linear(2, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[3.0, 4.0]]), torch.tensor([bad])
    assert float(clip_grad_norm(model.parameters(), max_norm)) == pytest.approx(norm, nan_ok=True)
    assert model.weight.grad.tolist() == [[3.0, 4.0]]


def test_a_tensor_in_one_piece_is_its_own_part() -> None:
    tensor = torch.zeros(2)
    assert own_part(tensor) is tensor


def test_options_of_a_new_config_replace_those_of_a_loaded_state_at_the_rate_of_its_step() -> None:
    def make(lr: float, decay: float) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr, weight_decay=decay)
        return optimizer, schedule_of(optimizer, "linear", warmup_fraction=0.0, num_steps=10)

    (old, old_schedule), (new, new_schedule) = make(1.0, 0.1), make(4.0, 0.5)
    for _ in range(5):
        old.step()
        old_schedule.step()
    options = options_of(new)
    new.load_state_dict(old.state_dict())
    new_schedule.load_state_dict(old_schedule.state_dict())
    set_options(new, new_schedule, options)
    assert (new.param_groups[0]["lr"], new.param_groups[0]["weight_decay"]) == (pytest.approx(4.0 * 0.5), 0.5)
    new.step()
    new_schedule.step()
    assert new.param_groups[0]["lr"] == pytest.approx(4.0 * 0.4)
