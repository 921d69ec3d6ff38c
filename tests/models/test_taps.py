"""Taps by module path: refused where there is no such module, gone when the forward pass is over."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potstill.errors import UserError
from potstill.models.taps import bare, check_taps, module_table, tapped

from .tiny import text_batch, tiny_model

KEY = "loss.term.hidden_mse.student_tap"
BATCH = text_batch([[5, 6, 7], [8, 9]], [0, 1])


def num_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_a_misspelt_tap_is_refused_with_the_nearest_path():
    model = tiny_model("bert", "text_classification")
    with pytest.raises(UserError, match=r"student \(BertForSequenceClassification\)") as caught:
        check_taps(model, ["bert.encoder.layers.1"], KEY)
    assert str(caught.value).startswith(f"{KEY}='bert.encoder.layers.1' names no module")
    assert "Nearest: 'bert.encoder.layer.1'. List them: potstill inspect student=..." in str(caught.value)


def test_a_tap_of_the_teacher_is_refused_in_the_teachers_name():
    model = tiny_model("bert", "text_classification")
    with pytest.raises(UserError, match="no module of the teacher"):
        check_taps(model, [""], "loss.term.hidden_mse.teacher_tap", who="teacher")


def test_existing_taps_pass():
    check_taps(tiny_model("bert", "text_classification"), ["bert.encoder.layer.1", "bert.pooler"], KEY)


def test_the_first_of_several_outputs_is_kept_with_its_graph():
    model = tiny_model("bert", "text_classification")
    with tapped(model, ["bert.encoder.layer.0.attention.self"]) as outputs:
        model(**BATCH.inputs)
    output = outputs["bert.encoder.layer.0.attention.self"]
    assert output.shape == (2, 3, 16)
    assert output.requires_grad


def test_hooks_are_gone_after_an_error():
    model = tiny_model("bert", "text_classification")
    before = num_hooks(model)
    with pytest.raises(ValueError, match="input_ids"), tapped(model, ["bert.encoder.layer.0"]):
        model(input_ids=None)
    assert num_hooks(model) == before


def test_one_misspelt_path_among_several_leaves_no_hook_behind():
    model = tiny_model("bert", "text_classification")
    before = num_hooks(model)
    with pytest.raises(AttributeError), tapped(model, ["bert.encoder.layer.0", "bert.encoder.layer.9"]):
        pass
    assert num_hooks(model) == before


def test_paths_do_not_change_when_the_model_is_compiled():
    model = tiny_model("bert", "text_classification")
    compiled = torch.compile(model, backend="eager")
    assert isinstance(compiled, nn.Module)
    assert bare(compiled) is model
    check_taps(compiled, ["bert.encoder.layer.1"], KEY)


def test_the_table_lists_every_module_and_counts_its_parameters_once():
    model = tiny_model("gpt2", "causal_lm")
    rows = {path: (name, count) for path, name, count in module_table(model)}
    assert rows["transformer.h.1"][0] == "GPT2Block"
    assert rows["lm_head"] == ("Linear", 50 * 16)
    assert rows["transformer"][1] == sum(parameter.numel() for parameter in model.parameters())
    assert "" not in rows
