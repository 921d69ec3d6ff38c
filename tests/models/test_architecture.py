"""Architectures: keys upon a stored config change what they name and nothing else."""

from __future__ import annotations

import pytest
from transformers import AutoConfig, PreTrainedConfig

from potstill.errors import UserError
from potstill.models.architecture import upon

from .tiny import CONFIGS


def stored(model_type: str, **keys: object) -> PreTrainedConfig:
    return AutoConfig.for_model(model_type, **{**CONFIGS[model_type], **keys})


def test_no_keys_leave_the_config_as_it_is():
    base = stored("bert")
    assert upon(base, {}, "student") is base


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer"])
def test_a_key_may_be_spelt_as_the_architecture_or_as_transformers_does(key: str):
    base = stored("gpt2")
    changed = upon(base, {key: 1}, "student")
    assert changed.num_hidden_layers == 1
    assert base.num_hidden_layers == 2


def test_an_architecture_without_a_number_of_layers_can_be_changed():
    assert upon(stored("resnet"), {"hidden_sizes": [4]}, "student").hidden_sizes == [4]


@pytest.mark.parametrize("num_layers", [1, 5])
def test_lists_of_one_value_a_layer_follow_the_number_of_layers(num_layers: int):
    base = stored("gemma2", layer_types=["full_attention", "sliding_attention"])
    changed = upon(base, {"num_hidden_layers": num_layers}, "student")
    assert len(changed.layer_types) == num_layers
    assert num_layers > 2 or changed.layer_types == ["full_attention"]


@pytest.mark.parametrize("keys", [{"num_hidden_layers": "two"}, {"hidden_size": "wide"}], ids=str)
def test_a_value_of_the_wrong_type_is_refused(keys: dict[str, str]):
    with pytest.raises(UserError) as caught:
        upon(stored("bert"), keys, "student")
    assert caught.value.key == "student.config"


def test_a_misspelt_key_is_refused_under_the_name_the_user_typed():
    with pytest.raises(UserError, match="'n_embd'") as caught:
        upon(stored("gpt2"), {"n_emdb": 8}, "teacher")
    assert caught.value.key == "teacher.config.n_emdb"
