"""Layers by number, and what goes into their attention: found in each architecture, and equal to what it computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from potstill.data.batch import Batch
from potstill.errors import UserError
from potstill.losses.attention import attention_scores
from potstill.losses.layers import Layers
from potstill.losses.padding import padded
from potstill.models.forward import forward
from potstill.models.layers import layers_of
from potstill.models.task import TASKS, Task
from potstill.signals.protocol import Needs

from .tiny import causal_batch, image_batch, text_batch, tiny_model

TEXT, IMAGE, CAUSAL = (TASKS[name] for name in ("text_classification", "image_classification", "causal_lm"))
TEXTS = [[5, 6, 7, 8, 9], [10, 11, 12]]
BATCHES = {TEXT: text_batch(TEXTS, [0, 1]), IMAGE: image_batch(2), CAUSAL: causal_batch(TEXTS, [0, 0])}
TASK_OF = {
    **dict.fromkeys(["bert", "roberta", "electra", "distilbert", "deberta-v2"], TEXT),
    **dict.fromkeys(["gpt2", "llama", "mistral", "qwen2"], CAUSAL),
    "vit": IMAGE,
}
PLAIN = ["bert", "roberta", "electra", "distilbert", "vit"]
GROUPED = {"llama", "mistral", "qwen2"}  # their keys and values have fewer heads
every_architecture = pytest.mark.parametrize("model_type", TASK_OF)


def model_of(model_type: str) -> Any:
    grouped = {"num_key_value_heads": 1} if model_type in GROUPED else {}
    return tiny_model(model_type, TASK_OF[model_type].name, initializer_range=0.3, **grouped)


def tapped(model: Any, batch: Batch, task: Task, paths: list[str]) -> dict[str, Tensor]:
    return forward(model, batch, task, Needs(taps=tuple(dict.fromkeys(paths)))).hidden


def found(model: Any, who: str = "student") -> Layers:
    return layers_of(model, "loss.term.mine", who=who)


@every_architecture
def test_layers_by_number_are_the_hidden_states_of_the_model(model_type: str) -> None:
    model, task = model_of(model_type), TASK_OF[model_type]
    layers, batch = found(model), BATCHES[task]
    hidden = tapped(model, batch, task, [layers.embeddings, *layers.outputs])
    states = model(**batch.inputs, output_hidden_states=True).hidden_states
    attended = task.positions(batch)
    expected = list(states) if attended is None else [state[attended] for state in states]
    assert len(layers.outputs) == model.config.num_hidden_layers == len(expected) - 1
    torch.testing.assert_close(hidden[layers.embeddings], expected[0])
    torch.testing.assert_close(hidden[layers.outputs[0]], expected[1])
    if task is TEXT:  # the others normalise the last once more
        torch.testing.assert_close(hidden[layers.outputs[1]], expected[2])


@every_architecture
def test_queries_keys_and_values_are_found_in_every_layer_at_their_own_widths(model_type: str) -> None:
    model, task = model_of(model_type), TASK_OF[model_type]
    layers, batch = found(model), BATCHES[task]
    paths = [part.path for layer in layers.attention for part in layer.values()]
    hidden = tapped(model, batch, task, paths)
    for layer in layers.attention:
        states = {name: part.of(hidden) for name, part in layer.items()}
        assert list(states) == ["queries", "keys", "values"]
        narrow = 8 if model_type in GROUPED else 16
        assert [state.shape[-1] for state in states.values()] == [16, narrow, narrow]
        assert not torch.equal(states["keys"], states["values"])


@pytest.mark.parametrize("model_type", PLAIN)
def test_scores_are_those_of_which_the_model_takes_the_softmax(model_type: str) -> None:
    model, task = model_of(model_type), TASK_OF[model_type]
    model.set_attn_implementation("eager")
    layers, batch = found(model), BATCHES[task]
    assert layers.has_plain_scores
    hidden = tapped(model, batch, task, [part.path for layer in layers.attention for part in layer.values()])
    lengths = task.lengths(batch)
    attentions = model(**batch.inputs, output_attentions=True).attentions
    for layer, expected in zip(layers.attention, attentions, strict=True):
        (queries, mask), (keys, _) = (padded(layer[name].of(hidden), lengths) for name in ("queries", "keys"))
        scores = attention_scores(queries, keys, layers.num_heads).masked_fill(~mask[:, None, None], -torch.inf)
        torch.testing.assert_close(scores.softmax(-1).transpose(1, 2)[mask], expected.transpose(1, 2)[mask])


def test_the_parts_of_a_fused_projection_are_those_that_the_model_attends_with() -> None:
    model = model_of("gpt2")
    model.set_attn_implementation("eager")
    layers, batch = found(model), BATCHES[CAUSAL]
    hidden = tapped(model, batch, CAUSAL, [part.path for layer in layers.attention for part in layer.values()])
    attentions = model(**batch.inputs, output_attentions=True).attentions
    layer, lengths = layers.attention[0], CAUSAL.lengths(batch)
    (queries, mask), (keys, _) = (padded(layer[name].of(hidden), lengths) for name in ("queries", "keys"))
    causal = torch.ones(5, 5, dtype=torch.bool).tril() & mask[:, None, None]
    scores = attention_scores(queries, keys, layers.num_heads).masked_fill(~causal, -torch.inf)
    torch.testing.assert_close(scores.softmax(-1).transpose(1, 2)[mask], attentions[0].transpose(1, 2)[mask])


@pytest.mark.parametrize("model_type", sorted(set(TASK_OF) - set(PLAIN)))
def test_scores_that_positions_or_a_mask_come_into_are_not_called_plain(model_type: str) -> None:
    assert not found(model_of(model_type)).has_plain_scores


def test_a_decoder_of_bert_does_not_look_both_ways() -> None:
    assert not found(tiny_model("bert", "causal_lm", is_decoder=True)).has_plain_scores


def test_a_model_without_a_head_has_the_same_layers_without_its_prefix() -> None:
    whole, bare = (found(model) for model in (model_of("bert"), model_of("bert").base_model))
    assert [f"bert.{path}" for path in (bare.embeddings, *bare.outputs)] == [whole.embeddings, *whole.outputs]
    assert bare.attention[1]["keys"].path == "encoder.layer.1.attention.self.key"


def test_a_model_without_layers_is_refused_with_what_to_do() -> None:
    model = tiny_model("resnet", "image_classification")
    with pytest.raises(UserError, match=r"by number, but in the teacher \(ResNetForImage.*\n.*module paths") as caught:
        found(model, "teacher")
    assert caught.value.key == "loss.term.mine"
