"""Layers without padding: the padded result in value and gradient, whatever the architecture does around them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from potstill.data.batch import Batch
from potstill.data.slots import slot_lengths
from potstill.errors import UserError
from potstill.losses.divergence import forward_kl
from potstill.models.forward import Output, forward
from potstill.models.packing import _parameters, layout_of, packs, set_packing
from potstill.models.task import TASKS, Task
from potstill.signals.protocol import Needs

from .tiny import VOCABULARY_SIZE, causal_batch, embedding_batch, text_batch, tiny_model

LENGTHS = (9, 3, 5, 3, 8, 1, 6)
TEXTS = [[3 + (7 * row + step) % (VOCABULARY_SIZE - 3) for step in range(n)] for row, n in enumerate(LENGTHS)]
ENCODERS, DECODERS = ("bert", "roberta", "electra", "distilbert"), ("gpt2", "llama", "mistral", "qwen2")
KEYS = {"llama": {"num_key_value_heads": 1}, "mistral": {"num_key_value_heads": 2}, "qwen2": {"num_key_value_heads": 2}}
TAPS = {"bert": ("embeddings", "encoder.layer.0", "encoder.layer.1.attention.self.query", "encoder.layer.1")}
TAPS |= {"gpt2": ("h.0", "h.1.attn.c_attn", "h.1"), "llama": ("layers.0", "layers.1.self_attn.q_proj", "norm")}


def batch_of(task: str, **padding: int) -> Batch:
    labels = [row % 2 for row in range(len(TEXTS))]
    if task == "causal_lm":
        return causal_batch(TEXTS, [1] * len(TEXTS), **padding)
    return (embedding_batch if task == "embedding" else text_batch)(TEXTS, labels, **padding)


def both(model: PreTrainedModel, batch: Batch, task: Task, needs: Needs) -> tuple[Output, Output]:
    """Padded and packed."""
    set_packing(model, "off", "student")
    padded = forward(model, batch, task, needs)
    set_packing(model, "on", "student")
    return padded, forward(model, batch, task, needs)


def gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def weighted(states: Tensor) -> Tensor:
    """No sum of squares: that of a normalised state is the same whatever the state."""
    return (states * torch.arange(states.numel()).view(states.shape).cos()).sum()


@pytest.mark.parametrize("padding", [{"right": 2}, {"left": 2}])
@pytest.mark.parametrize(
    ("model_type", "task"),
    [
        *((model_type, task) for task in ("text_classification", "embedding") for model_type in (*ENCODERS, *DECODERS)),
        *((model_type, "causal_lm") for model_type in DECODERS),
    ],
)
def test_packed_texts_give_the_padded_result(model_type: str, task: str, padding: dict[str, int]) -> None:
    model = tiny_model(model_type, task, **KEYS.get(model_type, {}))
    batch = batch_of(task, **padding)
    kind = "embeddings" if TASKS[task].is_embedding else "logits"
    outputs = [getattr(each, kind) for each in both(model, batch, TASKS[task], TASKS[task].output)]
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)
    target = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(0))
    losses = [forward_kl(each.flatten(0, -2), target.flatten(0, -2), temperature=2.0).sum() for each in outputs]
    torch.testing.assert_close(losses[1], losses[0])
    padded, packed = (gradients(model, loss) for loss in losses)
    assert padded.keys() == packed.keys()
    for name, gradient in padded.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("model_type", TAPS)
def test_taps_give_the_positions_in_the_order_of_the_examples(model_type: str) -> None:
    task = "text_classification"
    model = tiny_model(model_type, task)
    needs = Needs(logits=True, taps=tuple(f"{model.base_model_prefix}.{path}" for path in TAPS[model_type]))
    padded, packed = both(model, batch_of(task), TASKS[task], needs)
    for path in needs.taps:
        torch.testing.assert_close(packed.hidden[path], padded.hidden[path], rtol=1e-5, atol=1e-6, msg=path)
    losses = [sum(weighted(each) for each in output.hidden.values()) for output in (padded, packed)]
    first, second = (gradients(model, loss) for loss in losses)  # type: ignore[arg-type]
    for name, gradient in first.items():
        torch.testing.assert_close(second[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_a_window_that_slides_still_ends_where_it_did() -> None:
    model = tiny_model("mistral", "causal_lm", num_key_value_heads=2, sliding_window=3)
    wide = tiny_model("mistral", "causal_lm", num_key_value_heads=2, sliding_window=None)
    batch = batch_of("causal_lm")
    padded, packed = both(model, batch, TASKS["causal_lm"], Needs(logits=True))
    torch.testing.assert_close(packed.logits, padded.logits, rtol=1e-5, atol=1e-6)
    whole = forward(wide, batch, TASKS["causal_lm"], Needs(logits=True)).logits
    assert whole is not None
    assert not torch.allclose(whole, padded.logits, atol=1e-4), "the window is wider than the texts"  # type: ignore[arg-type]


def test_layers_see_little_padding() -> None:
    model, seen = tiny_model("bert", "text_classification"), []
    set_packing(model, "on", "student")
    layer = model.get_submodule("bert.encoder.layer.1.intermediate")
    layer.register_forward_pre_hook(lambda _layer, args: seen.append(args[0].shape))
    forward(model, batch_of("text_classification", right=20), TASKS["text_classification"], Needs(logits=True))
    assert seen[-1][:2] == (1, 9 + 9 + 6 + 5 + 3 + 3 + 1)  # the text of 8 tokens has the slots of that of 9


def test_no_token_costs_more_than_one_and_a_seventh_slots() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        lengths_B = generator.integers(1, 200, size=64)
        slots_B = slot_lengths(lengths_B)
        assert (slots_B >= lengths_B).all()
        assert slots_B.sum() <= 1.15 * lengths_B.sum()
        assert slots_B.max() == lengths_B.max()


def test_a_text_of_nothing_has_a_slot() -> None:
    assert slot_lengths(np.array([0, 4, 0])).tolist() == [1, 4, 1]
    assert slot_lengths(np.array([], dtype=np.int64)).tolist() == []


def test_a_batch_with_little_padding_is_left_as_it_is() -> None:
    assert layout_of(torch.ones(4, 6)) is None
    assert layout_of(torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])) is not None


def test_an_architecture_that_cannot_is_padded_or_refused() -> None:
    model = tiny_model("deberta-v2", "text_classification")
    set_packing(model, "auto", "student")
    assert not packs(model)
    with pytest.raises(UserError, match=r"hardware\.packing='on' is not to be had: the student"):
        set_packing(model, "on", "student")


def test_an_architecture_that_would_compute_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("bert", "text_classification")
    assert type(model).__name__ == "BertForSequenceClassification"
    layer = model.get_submodule("bert.encoder.layer.0")
    forward_as_it_is = type(layer).forward

    def mixing(self, hidden_states, attention_mask=None, *rest, **options):
        return forward_as_it_is(self, hidden_states + hidden_states.roll(1, dims=1), attention_mask, *rest, **options)

    monkeypatch.setattr(type(layer), "forward", mixing)
    _parameters.cache_clear()
    set_packing(model, "auto", "student")
    assert not packs(model)


def test_hooks_are_gone_after_an_error() -> None:
    model = tiny_model("bert", "text_classification")
    set_packing(model, "on", "student")
    batch = batch_of("text_classification")
    layer = model.get_submodule("bert.encoder.layer.1")
    with pytest.raises(UserError):
        forward(model, batch, TASKS["text_classification"], Needs(taps=("bert.pooler",)))
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks
