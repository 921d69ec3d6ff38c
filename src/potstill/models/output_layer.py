"""A language model's output layer, and what the model does to the layer's products: asked, not guessed."""

# C classes (the vocabulary)

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from potstill.losses.heads import Finish, Head
from potstill.models.taps import bare

WIDEST = 80.0  # of the products shown to the model: beyond every soft cap
_FOUND: WeakKeyDictionary[nn.Module, tuple[str, Finish] | None] = WeakKeyDictionary()


@dataclass(frozen=True)
class OutputLayer:
    """path: of the module. head: the layer as it is now. A sharded weight is whole just after the model ran."""

    path: str
    head: Head


def output_layer(model: nn.Module) -> OutputLayer | None:
    """What makes logits of the rows before it; None where the model does more to them than a `heads.Head` can say.

    The model is asked once: it runs on one token, its layer's products replaced by known ones.
    """
    model = bare(model)
    if model not in _FOUND:
        _FOUND[model] = _ask(model)
    found = _FOUND[model]
    if found is None:
        return None
    path, finish = found
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Linear)
    return OutputLayer(path, Head(layer.weight, layer.bias, finish.logit_scale, finish.soft_cap))


def _ask(model: nn.Module) -> tuple[str, Finish] | None:
    layer = model.get_output_embeddings()  # type: ignore[operator]
    paths = [path for path, module in model.named_modules() if module is layer]
    if type(layer) is not nn.Linear or not paths:  # an adapter, a quantised layer: its products are its own
        return None
    shown_C, logits_C = _shown(model, layer)
    tolerance = 4.0 * torch.finfo(layer.weight.dtype).eps
    for finish in _candidates(model.config):  # type: ignore[arg-type]
        expected_C = finish.logits(shown_C)
        if expected_C.shape == logits_C.shape and torch.allclose(expected_C, logits_C, rtol=tolerance):
            return paths[0], finish
    return None


@torch.no_grad()
def _shown(model: nn.Module, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Products, and the model's logits of them, float32, `[C]`."""
    weight = layer.weight
    shown_C = torch.linspace(-WIDEST, WIDEST, layer.out_features, device=weight.device, dtype=weight.dtype)
    was_training = model.training
    model.eval()
    ids = torch.zeros(1, 1, dtype=torch.long, device=weight.device)
    with layer.register_forward_hook(lambda *_: shown_C.expand(1, 1, -1)):
        logits = model(input_ids=ids, use_cache=False).logits
    model.train(was_training)
    return shown_C.float(), logits[0, -1].float()


def _candidates(config: object) -> Iterator[Finish]:
    """What models of transformers do, by the names of their options; the plainest first."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config  # type: ignore[attr-defined]
    yield Finish()
    for option, is_divisor in (("logit_scale", False), ("lm_head_multiplier", False), ("logits_scaling", True)):
        if value := getattr(text, option, None):
            yield Finish(1.0 / value if is_divisor else float(value))
    if cap := getattr(text, "final_logit_softcapping", None):
        yield Finish(soft_cap=float(cap))
