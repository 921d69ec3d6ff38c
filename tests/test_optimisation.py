from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from potstill.optimisation import parameter_groups, schedule_of
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
