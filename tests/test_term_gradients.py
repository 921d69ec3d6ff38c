from __future__ import annotations

import logging

import pytest
import torch

from potstill.tracking.callbacks import TermGradients

from .integration.distil import batch, distillation, fit

TEXT, TERMS = "text_classification", ("ce", "kd", "hidden_mse")


def measured(*terms: str, weights: dict[str, float] | None = None, epochs: int = 1, every: int = 1, **options):
    module = distillation(TEXT, *terms, **options)
    for name, weight in (weights or {}).items():
        module.objective.terms[name].weight = weight
    trainer = fit(module, [batch(TEXT)], epochs=epochs, callbacks=[TermGradients(every)])
    return module, {name: float(value) for name, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("max_examples", [None, 3])
def test_each_norm_is_that_of_the_step_with_the_weighted_term_alone(max_examples: int | None) -> None:
    weights = {"ce": 2.0, "kd": 0.5}
    module, metrics = measured(*TERMS, weights=weights, max_examples=max_examples)
    student = [parameter for parameter in module.student.parameters() if parameter.requires_grad]
    for name in TERMS:
        share = module.objective.shares(module.step_of(batch(TEXT)), module.task.count_rows(batch(TEXT)))[name]
        gradients = torch.autograd.grad(weights.get(name, 1.0) * share, student, allow_unused=True)
        expected = torch.stack([each.norm() for each in gradients if each is not None]).norm()
        assert metrics[f"train/grad_norm/{name}"] == pytest.approx(expected.item(), rel=1e-4)


def test_looking_at_the_terms_moves_nothing() -> None:
    seen, unseen = (measured(*TERMS, every=every, epochs=3, lr=0.1, max_examples=5) for every in (1, 100))
    assert all(torch.equal(value, unseen[0].state_dict()[name]) for name, value in seen[0].state_dict().items())
    assert "train/grad_norm/kd" not in unseen[1]
    assert {name: value for name, value in seen[1].items() if "grad_norm/" not in name} == unseen[1]


@pytest.mark.parametrize(("weight", "said"), [(1e-6, "kd hardly moves"), (1e6, "kd drowns"), (1.0, ""), (0.0, "")])
def test_a_term_that_does_nothing_or_drowns_the_rest_is_named_once(
    weight: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "potstill"):
        measured("ce", "kd", weights={"kd": weight}, epochs=5)
    named = [message for message in caplog.messages if message.startswith("loss.term.kd ")]
    assert len(named) == bool(said)
    assert all(said in message for message in named)


def test_a_term_alone_drowns_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "potstill"):
        measured("kd", epochs=5)
    assert caplog.messages == []
