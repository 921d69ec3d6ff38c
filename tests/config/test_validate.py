from __future__ import annotations

import pytest

from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.config.validate import CHOICES, POSITIVE, validate
from potstill.errors import UserError

FLEX = ["data.task=text_classification", "hardware.packed_attention=flex"]


def refusal(*overrides: str) -> UserError:
    config = typed(composed("train", overrides), TrainConfig)
    with pytest.raises(UserError) as caught:
        validate(config)
    return caught.value


def test_the_defaults_are_valid():
    validate(typed(composed("train", []), TrainConfig))


@pytest.mark.parametrize("key", CHOICES)
def test_a_value_that_is_no_choice_is_refused(key):
    assert refusal(f"{key}=nothing_like_it").key == key


@pytest.mark.parametrize("key", POSITIVE)
@pytest.mark.parametrize("value", [0, -1])
def test_a_number_that_must_be_positive_is(key, value):
    assert refusal(f"{key}={value}").key == key


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["optim.warmup_fraction=1.0"], "optim.warmup_fraction"),
        (["seed=-1"], "seed"),
        (["data.drop_copies=all"], "data.drop_copies"),
        (["callbacks.term_gradients.every_steps=15"], "callbacks.term_gradients.every_steps"),
        (["callbacks.term_gradients.every_steps=10", "hardware=cpu_fsdp2"], "callbacks.term_gradients.every_steps"),
        (["returns=[val/acuracy]"], "returns"),
        (["returns=[val/loss,cost/latency_ms_p50]", "hardware=cpu_fsdp2"], "returns"),
        (["optim.max_steps=3"], "optim.max_steps"),
        (["optim.max_epochs=null"], "optim.max_steps"),
        (["loss/term=[]"], "loss.term"),
        (["+loss.term.kd.weight=1.0"], "loss.term.kd"),
        (["student=teacher_layers"], "student.init"),
        (["student=pretrained"], "student.init"),
        (["~student"], "student.config"),
        (["teacher.remember=true", "data.task=causal_lm"], "teacher.remember"),
        (["hardware.packing=on"], "hardware.packing"),
        (["hardware.packed_attention=flex"], "hardware.packed_attention"),
        ([*FLEX, "hardware.packing=off"], "hardware.packed_attention"),
        ([*FLEX, "hardware.compile=true"], "hardware.packed_attention"),
        ([*FLEX, "teacher.compile=true"], "hardware.packed_attention"),
    ],
)
def test_combinations_that_cannot_work_are_refused(overrides, key):
    assert refusal(*overrides).key == key
