from __future__ import annotations

import pytest
import torch

from potstill.config.build import build
from potstill.errors import UserError

CE = "potstill.losses.terms.CrossEntropy"


def test_options_and_arguments_reach_the_target():
    parameter = torch.nn.Parameter(torch.ones(1))
    node = {"_target_": "torch.optim.SGD", "lr": 0.5}
    optimizer = build(node, "optim.optimizer", params=[parameter])
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert node == {"_target_": "torch.optim.SGD", "lr": 0.5}, "the config is not changed"


@pytest.mark.parametrize(
    ("node", "key", "words"),
    [
        ({}, "x", "no _target_"),
        ({"_target_": "os.system", "command": "ls"}, "x._target_", "outside what a config"),
        ({"_target_": CE, "weight": {"_target_": "os.system"}}, "x.weight._target_", "outside what a config"),
        ({"_target_": "potstill.losses.terms.CrosEntropy"}, "x._target_", "cannot be imported"),
        ({"_target_": CE, "wieght": 1.0}, "x.wieght", "Nearest: 'weight'"),
        ({"_target_": CE, "_partial_": True}, "x._partial_", "no option"),
        ({"_target_": CE, "weight": "1e-5"}, "x.weight", "not a number"),
        ({"_target_": CE, "weight": True}, "x.weight", "not a number"),
        ({"_target_": "potstill.data.sources.files"}, "x.train", "needs it"),
        ({"_target_": "torch.optim.SGD", "lr": "1e-3"}, "x.lr", "not a number"),
        ({"_target_": "torch.optim.SGD", "lr": -1.0}, "x", "Invalid learning rate"),
        ({"_target_": "potstill.data.sources.files", "train": 3}, "x.train", "not text"),
        ({"_target_": "potstill.data.sources.files", "train": "a", "test": 3}, "x.test", "not text or null"),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_key(node, key, words):
    arguments = {"params": [torch.nn.Parameter(torch.ones(1))]} if "torch.optim" in node.get("_target_", "") else {}
    with pytest.raises(UserError, match=words) as caught:
        build(node, "x", **arguments)
    assert caught.value.key == key


def test_a_fault_in_our_own_code_is_not_blamed_on_the_config(monkeypatch):
    monkeypatch.setattr("potstill.data.embedded.load_digits", lambda *_, **__: int("not a number"))
    with pytest.raises(ValueError, match="invalid literal") as caught:
        build({"_target_": "potstill.data.embedded.digits"}, "data.source")
    assert not isinstance(caught.value, UserError)
