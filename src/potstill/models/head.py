"""A language model in two parts: all that is below its head, and the head with what the model does to its logits.

Either runs inside the model itself, so that nothing has to be known of what lies between the two, or of a scale and a
soft-cap behind them.
"""

# L length, N rows, V vocabulary, D width

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from potstill.data.batch import Batch
from potstill.errors import UserError
from potstill.models.forward import Output, forward, right_padded
from potstill.models.taps import bare
from potstill.models.task import Task
from potstill.signals.protocol import Needs


def below_head(model: nn.Module, batch: Batch, task: Task, needs: Needs) -> tuple[Tensor, Output]:
    """What reaches the head at the scored positions, `[N, D]`, and what else is needed; the head is not run."""
    batch = right_padded(batch, task)
    rows, seen = task.scored_rows(batch), []
    assert rows is not None
    with _head_of(model).register_forward_pre_hook(lambda _head, args: seen.append(args[0])):
        output = forward(model, batch, task, replace(needs, logits=False))
    return seen[0].flatten(0, 1).index_select(0, rows), output


def logits_of(model: PreTrainedModel, hidden_ND: Tensor) -> Tensor:
    """The model's logits `[N, V]` where its head gets `hidden_ND`; nothing below the head is run."""

    def give(_head: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return hidden_ND.unsqueeze(0), *args[1:]

    ids = torch.zeros(1, 1, dtype=torch.long, device=hidden_ND.device)
    with _without_body(model), _head_of(model).register_forward_pre_hook(give):
        return model.forward(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[
            0
        ]  # the compiled model has another body


def check_head(model: PreTrainedModel, key: str) -> None:
    """UserError under `key` where the model has no body of its own below the head."""
    if model.base_model is model or model.get_output_embeddings() is None:
        problem = f"needs a head that can be run alone, and a {type(model).__name__} cannot be taken apart."
        raise UserError(key, "exact", problem, f"Store a part of each distribution: {key}=top_k")


def _head_of(model: nn.Module) -> nn.Module:
    return bare(model).get_output_embeddings()  # type: ignore[operator]


@contextmanager
def _without_body(model: PreTrainedModel) -> Iterator[None]:
    """Let the body answer with one position of zeros, whatever it is asked."""
    body, width = model.base_model, model.config.get_text_config().hidden_size
    zeros = next(model.parameters()).new_zeros(1, 1, width)

    def answer(*_arguments: Any, **_options: Any) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=zeros)

    body.forward = answer
    try:
        yield
    finally:
        del body.forward  # the class's own shows again
