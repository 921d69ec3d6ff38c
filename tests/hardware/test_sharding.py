"""Sharding on one rank: what becomes blocks, what stays tied, and the way there and back. Two ranks: test_ranks.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from potstill.errors import UserError
from potstill.hardware.sharding import (
    blocks,
    checkpoint_activations,
    join_backward,
    laid_out_like,
    load_whole,
    shard,
    whole,
)
from potstill.models.forward import forward
from potstill.models.taps import tapped
from potstill.models.task import TASKS
from potstill.objective import Objective
from potstill.signals.protocol import Needs
from tests.integration.distil import batch
from tests.losses.registry import make_term
from tests.models.tiny import tiny_model

TEXT, LANGUAGE, IMAGE = "text_classification", "causal_lm", "image_classification"
INSIDE = "bert.encoder.layer.1.attention.output.dense"


def ids(parameters: Any) -> list[int]:
    return [id(parameter) for parameter in parameters]


def logits(model: Any, task: str) -> Tensor:
    with torch.no_grad():
        found = forward(model, batch(task), TASKS[task], Needs(logits=True)).logits
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("model_type", "task", "expected"),
    [
        ("bert", TEXT, ["BertEmbeddings", "BertLayer", "BertLayer"]),
        ("bert", LANGUAGE, ["BertLayer", "BertLayer"]),  # the head shares the embeddings' matrix
        ("gpt2", LANGUAGE, ["GPT2Block", "GPT2Block"]),
        ("llama", LANGUAGE, ["LlamaDecoderLayer", "LlamaDecoderLayer"]),
        ("vit", IMAGE, ["ViTEmbeddings", "ViTLayer", "ViTLayer"]),
        ("resnet", IMAGE, ["ResNetConvLayer", "ResNetConvLayer", "ResNetConvLayer"]),
    ],
)
def test_blocks_are_the_parts_that_must_stay_in_one_piece(model_type: str, task: str, expected: list[str]) -> None:
    found = blocks(tiny_model(model_type, task))
    assert [type(block).__name__ for block in found] == expected
    parameters = [parameter for block in found for parameter in block.parameters()]
    assert len(parameters) == len({id(parameter) for parameter in parameters}), "blocks overlap"


def test_without_a_word_of_the_architecture_blocks_are_the_longest_list() -> None:
    lists = nn.ModuleDict({"a": nn.ModuleList([nn.Linear(2, 2)]), "b": nn.ModuleList(nn.Linear(2, 2) for _ in "xyz")})
    assert blocks(lists) == list(lists["b"])  # type: ignore[arg-type]
    assert blocks(nn.Linear(2, 2)) == []


@pytest.mark.parametrize(("model_type", "task"), [("bert", TEXT), ("bert", LANGUAGE), ("gpt2", LANGUAGE)])
def test_a_sharded_model_answers_as_before_and_keeps_its_ties(mesh: DeviceMesh, model_type: str, task: str) -> None:
    model = tiny_model(model_type, task)
    expected, before = logits(model, task), dict(model.named_parameters())
    names = model.state_dict().keys()
    shard(model, mesh)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    torch.testing.assert_close(logits(model, task), expected, rtol=0, atol=0)
    assert dict(model.named_parameters()).keys() == before.keys()
    if task == LANGUAGE:
        head = model.get_output_embeddings()
        assert head is not None
        assert head.weight is model.get_input_embeddings().weight
    assert whole(model.state_dict()).keys() == names


def test_sharding_twice_is_sharding_once(mesh: DeviceMesh) -> None:
    model = tiny_model("bert", TEXT)
    shard(model, mesh)
    before = ids(model.parameters())
    shard(model, mesh)
    assert ids(model.parameters()) == before


def test_what_has_no_parameters_is_left_alone(mesh: DeviceMesh) -> None:
    objective = Objective({"kd": make_term("kd")})
    shard(objective, mesh)
    assert not isinstance(objective, FSDPModule)


def test_a_whole_state_goes_into_a_sharded_model_and_out_again(mesh: DeviceMesh) -> None:
    source, target = tiny_model("gpt2", LANGUAGE, seed=1), tiny_model("gpt2", LANGUAGE, seed=2)
    state = {name: value.clone() for name, value in source.state_dict().items()}
    shard(target, mesh)
    load_whole(target, state)
    found = whole(target.state_dict())
    assert found.keys() == state.keys()
    assert not any(isinstance(value, DTensor) for value in found.values())
    assert all(torch.equal(found[name], value) for name, value in state.items())
    torch.testing.assert_close(logits(target, LANGUAGE), logits(source, LANGUAGE))


def test_a_rank_without_use_for_the_whole_keeps_nothing_of_it(mesh: DeviceMesh) -> None:
    model = nn.Linear(2, 2)
    shard(model, mesh)
    state = {"weight": model.weight, "step": torch.tensor(3.0), "nested": [{"lr": 0.1, "bias": model.bias}, (1, "a")]}
    kept = whole(state, keep=True)
    assert kept["nested"][1] == (1, "a")
    assert torch.equal(kept["nested"][0]["bias"], model.bias.full_tensor())  # type: ignore[operator]
    assert whole(state, keep=False) == {"weight": None, "step": None, "nested": [{"lr": 0.1, "bias": None}, (1, "a")]}


def test_a_value_of_another_shape_than_its_parameter_is_not_sharded(mesh: DeviceMesh) -> None:
    model = nn.Linear(2, 2)
    step = torch.tensor(3.0)
    assert laid_out_like(step, model.weight) is step
    shard(model, mesh)
    assert laid_out_like(step, model.weight) is step  # an optimizer's count of steps
    assert isinstance(laid_out_like(torch.zeros(2, 2), model.weight), DTensor)


@pytest.mark.parametrize("tap", [INSIDE, "bert.embeddings.word_embeddings", "bert.encoder.layer.1"])
def test_the_gradient_of_a_tap_alone_is_that_of_the_model_in_one_piece(mesh: DeviceMesh, tap: str) -> None:
    def gradients(model: Any, *, is_sharded: bool) -> dict[str, Tensor]:
        with tapped(model, [tap]) as found:
            model(**batch(TEXT).inputs)
        if is_sharded:
            join_backward(model, found)
        found[tap].square().sum().backward()
        return {name: whole(each.grad) for name, each in model.named_parameters() if each.grad is not None}

    expected = gradients(tiny_model("bert", TEXT), is_sharded=False)
    model = tiny_model("bert", TEXT)
    shard(model, mesh)
    found = gradients(model, is_sharded=True)
    assert {name for name, value in expected.items() if value.any()} <= found.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name])


def test_an_architecture_without_activation_checkpointing_is_refused_before_training() -> None:
    model = tiny_model("bert", TEXT)
    checkpoint_activations(model)
    assert model.is_activation_checkpointing
    model.supports_gradient_checkpointing = False
    with pytest.raises(UserError, match="BertForSequenceClassification") as caught:
        checkpoint_activations(model)
    assert caught.value.key == "hardware.activation_checkpointing"
