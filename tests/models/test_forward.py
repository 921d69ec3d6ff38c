"""Models as rows: only scored rows reach the head, padding changes nothing, gradients pass through taps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from potstill.data.batch import Batch
from potstill.errors import UserError
from potstill.models.forward import forward
from potstill.models.task import TASKS
from potstill.signals.protocol import Needs

from .tiny import VOCABULARY_SIZE, causal_batch, image_batch, text_batch, tiny_model

CAUSAL, TEXT, IMAGE = TASKS["causal_lm"], TASKS["text_classification"], TASKS["image_classification"]
TEXTS = [[5, 6, 7, 8, 9], [10, 11, 12]]
LAST_LAYER = {"bert": "bert.encoder.layer.1", "gpt2": "transformer.h.1", "llama": "model.layers.1"}
PADDINGS = [{"left": 3}, {"right": 4}, {"left": 2, "right": 1}]


def gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gemma2"])
def test_scored_logits_are_those_of_the_whole_model(model_type: str):
    model, batch = tiny_model(model_type, "causal_lm"), causal_batch(TEXTS, [2, 1])
    logits = forward(model, batch, CAUSAL, Needs(logits=True)).logits
    whole = model(**batch.inputs).logits
    expected = torch.cat([whole[0, 1:4], whole[1, 0:2]])
    torch.testing.assert_close(logits, expected)


def test_prompt_and_padding_never_reach_the_head():
    model, seen = tiny_model("gpt2", "causal_lm"), []
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    head.register_forward_hook(lambda _module, args, _output: seen.append(args[0].shape))
    forward(model, causal_batch(TEXTS, [2, 1]), CAUSAL, Needs(logits=True))
    assert seen == [(1, 5, 16)]


def test_taps_alone_cost_no_logits():
    model, seen = tiny_model("gpt2", "causal_lm"), []
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    head.register_forward_hook(lambda _module, args, _output: seen.append(args[0].shape[1]))
    output = forward(model, causal_batch(TEXTS, [2, 1]), CAUSAL, Needs(taps=(LAST_LAYER["gpt2"],)))
    assert seen == [0]
    assert output.logits is None


def test_a_batch_without_scored_rows_gives_no_rows_and_zero_gradients():
    model = tiny_model("gpt2", "causal_lm")
    logits = forward(model, causal_batch(TEXTS, [5, 3]), CAUSAL, Needs(logits=True)).logits
    assert logits is not None
    assert logits.shape == (0, VOCABULARY_SIZE)
    assert all(bool((grad == 0).all()) for grad in gradients(model, logits.sum()).values())


@pytest.mark.parametrize("model_type", ["bert", "vit", "gpt2", "llama"])
def test_a_rank_without_examples_gets_no_rows_and_zero_gradients(model_type: str):
    task, batch = {
        "bert": (TEXT, text_batch(TEXTS, [0, 1])),
        "vit": (IMAGE, image_batch(2)),
    }.get(model_type, (CAUSAL, causal_batch(TEXTS, [0, 0])))
    empty = Batch({name: value[:0] for name, value in batch.inputs.items()}, batch.labels[:0], ())
    model = tiny_model(model_type, task.name)
    logits = forward(model, empty, task, Needs(logits=True)).logits
    assert logits is not None
    assert len(logits) == len(task.row_labels(empty)) == 0
    found = gradients(model, logits.sum())
    assert found
    assert all(bool((grad == 0).all()) for grad in found.values())


@pytest.mark.slow
def test_a_compiled_model_gives_the_taps_and_rows_of_each_call():
    model, path = tiny_model("gpt2", "causal_lm"), LAST_LAYER["gpt2"]
    compiled = torch.compile(model, backend="eager")
    assert isinstance(compiled, nn.Module)
    for prompt, taps in ((0, ()), (2, (path,)), (1, ()), (0, (path,))):
        batch, needs = causal_batch(TEXTS, [prompt, 1]), Needs(logits=True, taps=taps)
        output, expected = (forward(either, batch, CAUSAL, needs) for either in (compiled, model))
        torch.testing.assert_close(output.logits, expected.logits)
        torch.testing.assert_close(output.hidden, expected.hidden)


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2", "llama"])
def test_padding_changes_neither_logits_nor_gradients(model_type: str, padding: dict[str, int]):
    task = CAUSAL if model_type in ("gpt2", "llama") else TEXT
    model = tiny_model(model_type, task.name)

    def batch(**padding: int) -> Batch:
        return causal_batch(TEXTS, [0, 1], **padding) if task.is_causal else text_batch(TEXTS, [0, 1], **padding)

    plain, padded = (forward(model, b, task, Needs(logits=True)).logits for b in (batch(), batch(**padding)))
    assert plain is not None
    assert padded is not None
    torch.testing.assert_close(padded, plain)
    expected = gradients(model, plain.square().sum())
    for name, grad in gradients(model, padded.square().sum()).items():
        torch.testing.assert_close(grad, expected[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("model_type", ["bert", "gpt2", "llama"])
def test_padding_reaches_no_tap(model_type: str, padding: dict[str, int]):
    task = TEXT if model_type == "bert" else CAUSAL
    model, path = tiny_model(model_type, task.name), LAST_LAYER[model_type]

    def hidden(**padding: int) -> Tensor:
        batch = text_batch(TEXTS, [0, 1], **padding) if task is TEXT else causal_batch(TEXTS, [0, 0], **padding)
        return forward(model, batch, task, Needs(taps=(path,))).hidden[path]

    assert hidden().shape == (8, 16)
    torch.testing.assert_close(hidden(**padding), hidden())


def test_gradients_of_a_tap_reach_the_layers_below_it_and_no_other():
    model, path = tiny_model("bert", "text_classification"), "bert.encoder.layer.0"
    hidden = forward(model, text_batch(TEXTS, [0, 1]), TEXT, Needs(taps=(path,))).hidden[path]
    names = gradients(model, hidden.square().sum()).keys()
    assert any(name.startswith("bert.encoder.layer.0.") for name in names)
    assert any(name.startswith("bert.embeddings.") for name in names)
    assert not any(name.startswith(("bert.encoder.layer.1.", "classifier.")) for name in names)


def test_gradient_through_a_tap_equals_a_finite_difference():
    model, path = tiny_model("bert", "text_classification").double(), "bert.encoder.layer.1"
    weight = model.get_parameter("bert.encoder.layer.0.output.dense.weight")

    def loss() -> Tensor:
        hidden = forward(model, text_batch(TEXTS, [0, 1]), TEXT, Needs(taps=(path,))).hidden[path]
        return hidden.pow(3).sum()

    expected = gradients(model, loss())["bert.encoder.layer.0.output.dense.weight"][3, 5]
    step = 1e-5
    with torch.no_grad():
        weight[3, 5] += step
        above = loss()
        weight[3, 5] -= 2 * step
        below = loss()
    torch.testing.assert_close((above - below) / (2 * step), expected, rtol=1e-5, atol=1e-8)


def test_image_models_keep_the_shape_of_their_taps():
    model = tiny_model("vit", "image_classification")
    path = next(path for path, module in model.named_modules() if type(module).__name__ == "ViTLayer")
    output = forward(model, image_batch(3), IMAGE, Needs(logits=True, taps=(path,)))
    assert output.logits is not None
    assert output.logits.shape == (3, 2)
    assert output.hidden[path].shape == (3, 5, 16)


def test_pixels_are_cast_to_the_dtype_of_the_model():
    model = tiny_model("vit", "image_classification").bfloat16()
    logits = forward(model, image_batch(3), IMAGE, Needs(logits=True)).logits
    assert logits is not None
    assert logits.dtype == torch.bfloat16


def test_a_tap_without_one_vector_per_position_is_refused():
    model = tiny_model("bert", "text_classification")
    with pytest.raises(UserError, match=r"'bert\.pooler' gives \[2, 16\]"):
        forward(model, text_batch(TEXTS, [0, 1]), TEXT, Needs(taps=("bert.pooler",)))
