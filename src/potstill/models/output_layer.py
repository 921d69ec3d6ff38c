"""A language model's output layer: which module it is, what the model does to its products, and each side run alone.

All runs inside the model itself, so that nothing has to be known of what lies between body and output layer, or of a
scale and a soft-cap behind it.
"""

# L length, N rows, C classes (the vocabulary), D width

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from potstill.errors import UserError
from potstill.losses.heads import Finish, Head, HeadInput
from potstill.models.low_rank import LowRank, is_as_told, low_rank_of
from potstill.models.taps import bare

WIDEST = 80.0  # of the products shown to the model: beyond every soft cap
_FOUND: WeakKeyDictionary[nn.Module, tuple[str, Finish] | None] = WeakKeyDictionary()


@dataclass(frozen=True)
class OutputLayer:
    """path: of the module. head: the layer as it is now. A sharded weight is whole just after the model ran.

    beside: the low-rank part of a layer that has one.
    """

    path: str
    head: Head
    beside: LowRank | None = None

    def rows(self, before_ND: Tensor) -> HeadInput:
        """Logits of what reaches the layer, not multiplied yet."""
        return HeadInput(before_ND, self.head, self.beside and self.beside.low(before_ND))


def layer_of(model: nn.Module) -> nn.Module | None:
    """The module that makes logits; None where the model says of none that it does."""
    return bare(model).get_output_embeddings()  # type: ignore[operator]


def num_columns(model: nn.Module | None) -> int | None:
    """Of a language model's logits; None of any other model."""
    layer = None if model is None else layer_of(model)
    return None if layer is None else len(layer.weight)  # type: ignore[arg-type]


def output_layer(model: nn.Module) -> OutputLayer | None:
    """What makes logits of the rows before it; None where the model does more to them than a `heads.Head` can say.

    The model is asked once: its layer's products are replaced by known ones. Its body is not run.
    """
    model = bare(model)
    if model not in _FOUND:
        _FOUND[model] = _ask(model)
    found = _FOUND[model]
    if found is None:
        return None
    path, finish = found
    layer = model.get_submodule(path)
    beside = low_rank_of(layer)
    base, up = (layer, None) if beside is None else (beside.base, beside.up)
    assert isinstance(base, nn.Linear)
    return OutputLayer(path, Head(base.weight, base.bias, finish.logit_scale, finish.soft_cap, up), beside)


@contextmanager
def rows_before(model: nn.Module, rows: Tensor, *, as_logits: bool) -> Iterator[list[Tensor]]:
    """Replace the layer's input `[B, L, D]` by `[1, N, D]`; the model's own scaling of its logits still applies.

    Yields a list that keeps the rows on their way to the layer, `[N, D]`. Not `as_logits`, the layer gets none of them.
    """
    before: list[Tensor] = []

    def pick(_layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        rows_ND = args[0].flatten(0, 1).index_select(0, rows)
        before.append(rows_ND)
        return (rows_ND if as_logits else rows_ND[:0]).unsqueeze(0), *args[1:]

    layer = layer_of(model)
    assert layer is not None
    with layer.register_forward_pre_hook(pick):
        yield before


def logits_of(model: PreTrainedModel, before_ND: Tensor) -> Tensor:
    """The model's logits `[N, C]` where its output layer gets `before_ND`; nothing below the layer is run."""

    def give(_layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return before_ND.unsqueeze(0), *args[1:]

    ids = torch.zeros(1, 1, dtype=torch.long, device=before_ND.device)
    layer = layer_of(model)
    assert layer is not None
    with _without_body(model), layer.register_forward_pre_hook(give):
        # not called: the compiled model has another body
        return model.forward(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]


def check_apart(model: PreTrainedModel, key: str) -> None:
    """UserError under `key` where the model has no body of its own below the output layer."""
    if model.base_model is model or layer_of(model) is None:
        problem = f"needs a head that can be run alone, and a {type(model).__name__} cannot be taken apart."
        raise UserError(key, "exact", problem, f"Store a part of each distribution: {key}=top_k")


def _ask(model: nn.Module) -> tuple[str, Finish] | None:
    layer = layer_of(model)
    paths = [path for path, module in model.named_modules() if module is layer]
    if layer is None or not paths:
        return None
    beside = low_rank_of(layer)
    if type(layer) is not nn.Linear and not (beside and is_as_told(layer, beside)):
        return None  # another adapter, a quantised layer: its products are its own
    base = beside.base if beside else layer
    shown_C, logits_C = _shown(model, layer, base)  # type: ignore[arg-type]
    tolerance = 4.0 * torch.finfo(base.weight.dtype).eps  # type: ignore[arg-type]
    for finish in _candidates(model.config):  # type: ignore[arg-type]
        expected_C = finish.logits(shown_C)
        if expected_C.shape == logits_C.shape and torch.allclose(expected_C, logits_C, rtol=tolerance):
            return paths[0], finish
    return None


@torch.no_grad()
def _shown(model: PreTrainedModel, layer: nn.Module, base: nn.Linear) -> tuple[Tensor, Tensor]:
    """Products of the layer, and the model's logits of them, float32, `[C]`."""
    weight = base.weight
    shown_C = torch.linspace(-WIDEST, WIDEST, base.out_features, device=weight.device, dtype=weight.dtype)
    was_training = model.training
    model.eval()
    with layer.register_forward_hook(lambda *_: shown_C.expand(1, 1, -1)):
        logits_1C = logits_of(model, weight.new_zeros(1, base.in_features))
    model.train(was_training)
    return shown_C.float(), logits_1C[-1].float()


@contextmanager
def _without_body(model: PreTrainedModel) -> Iterator[None]:
    """Let the body, where there is one, answer with one position of zeros, whatever it is asked."""
    body, width = model.base_model, model.config.get_text_config().hidden_size
    if body is model:
        yield
        return
    zeros = next(model.parameters()).new_zeros(1, 1, width)

    def answer(*_arguments: Any, **_options: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=zeros)

    body.forward = answer
    try:
        yield
    finally:
        del body.forward  # the class's own shows again


def _candidates(config: object) -> Iterator[Finish]:
    """What models of transformers do, by the names of their options; the plainest first."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config  # type: ignore[attr-defined]
    yield Finish()
    for option, is_divisor in (("logit_scale", False), ("lm_head_multiplier", False), ("logits_scaling", True)):
        if value := getattr(text, option, None):
            yield Finish(1.0 / value if is_divisor else float(value))
    if cap := getattr(text, "final_logit_softcapping", None):
        yield Finish(soft_cap=float(cap))
