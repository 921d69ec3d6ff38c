"""One forward pass of any model of any task, as rows: logits, hidden states and embeddings without masks."""

# B batch, K texts of an example, L length, N rows, C classes, P attended positions, D width

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from potstill.data.batch import IGNORE, Batch
from potstill.errors import UserError
from potstill.hardware.sharding import join_backward
from potstill.losses.heads import HeadInput
from potstill.models.output_layer import output_layer, rows_before
from potstill.models.packing import Layout, packed
from potstill.models.pooling import pooled
from potstill.models.taps import bare, tapped
from potstill.models.task import Task
from potstill.signals.protocol import Needs


@dataclass
class Output:
    """logits: `[N, C]`, or None where not needed. hidden: by module path, `[P, D]` (text) or `[B, ...]` (images).
    embeddings: `[B, K, D]`, float32, or None where not needed. before_head: what reaches the output layer of a causal
    language model, in the order of its logits' rows, `[N, D]`, or None where not needed. head: the same, with the
    layer; None also where the model does more to it than a `heads.Head` can say.
    """

    logits: Tensor | None = None
    hidden: dict[str, Tensor] = field(default_factory=dict)
    embeddings: Tensor | None = None
    before_head: Tensor | None = None
    head: HeadInput | None = None


def forward(model: nn.Module, batch: Batch, task: Task, needs: Needs) -> Output:
    """Run `model` on `batch` and return what is needed of it, in the model's own dtype and with its graph.

    The model itself is called, so that whatever wraps it (DDP, FSDP, compile) takes part. Of a causal language model
    only the scored positions reach the head: logits of prompt and padding are never computed, and where rows before the
    head are needed, none at all. A batch without examples gives no rows, with a graph to every parameter.
    """
    if not len(batch):
        return _no_rows(forward(model, _stand_in(batch), task, needs))
    batch = right_padded(batch, task)
    inputs = _in_dtype_of(model, batch.inputs)
    logits = embeddings = before_ND = head = None
    mask = batch.on_host.inputs.get("attention_mask")
    with tapped(model, needs.taps) as hidden, packed(model, mask, batch.labels.device) as layout:
        if task.is_embedding:
            embeddings = _embeddings(model, inputs)
        elif task.is_causal:
            logits, before_ND, head = _scored(model, inputs, task.scored_rows(batch), needs)
        else:
            logits = model(**inputs).logits
    join_backward(bare(model), hidden)
    attended = task.attended(batch) if needs.taps else None
    return Output(
        logits if needs.logits else None,
        {path: _select(path, hidden[path], attended, batch, layout) for path in needs.taps},
        embeddings if needs.embeddings else None,
        before_ND,
        head,
    )


def _stand_in(batch: Batch) -> Batch:
    """One example of the shape of those an empty batch does not have: the architectures cannot run on none."""
    inputs = {name: value.new_ones(1, *value.shape[1:]) for name, value in batch.inputs.items()}
    return Batch(inputs, batch.labels.new_full((1, *batch.labels.shape[1:]), IGNORE), ("",))


def _no_rows(output: Output) -> Output:
    logits = None if output.logits is None else output.logits[:0]
    embeddings = None if output.embeddings is None else output.embeddings[:0]
    before_ND = None if output.before_head is None else output.before_head[:0]
    head = None if output.head is None else output.head.take(slice(0))
    return Output(logits, {path: value[:0] for path, value in output.hidden.items()}, embeddings, before_ND, head)


def _embeddings(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """The model sees the texts of `[B, K, L]` side by side."""
    texts = {name: value.flatten(0, 1) for name, value in inputs.items()}
    embeddings_ND = pooled(bare(model), model(**texts).last_hidden_state, texts["attention_mask"])
    return embeddings_ND.unflatten(0, inputs["input_ids"].shape[:2])


def _scored(
    model: nn.Module, inputs: dict[str, Tensor], rows: Tensor | None, needs: Needs
) -> tuple[Tensor, Tensor | None, HeadInput | None]:
    """Logits of the scored positions, or none and the positions as they are before the head."""
    assert rows is not None
    with rows_before(model, rows, as_logits=needs.logits) as before:
        logits = model(**inputs, use_cache=False).logits
    num_expected = len(rows) if needs.logits else 0
    assert logits.shape[:2] == (1, num_expected), "the model computes its logits around its output embeddings"
    if not needs.head:
        return logits[0], None, None
    layer = output_layer(model)
    if layer is None:
        return logits[0], before[0], None
    join_backward(bare(model), {layer.path: before[0]})
    return logits[0], before[0], layer.rows(before[0])


def right_padded(batch: Batch, task: Task) -> Batch:
    """The same rows with all padding on the right.

    Models with absolute positions count padding as text, and encoders take their first column for the summary of the
    example: left padding would change what they compute.
    """
    mask = batch.inputs.get("attention_mask")
    if mask is None:
        return batch
    order = mask.argsort(dim=-1, descending=True, stable=True)
    inputs = {
        name: value.gather(-1, order) if value.shape == mask.shape else value for name, value in batch.inputs.items()
    }
    labels = batch.labels.gather(1, order) if task.is_causal else batch.labels
    host = None if batch.host is None else right_padded(batch.host, task)
    return replace(batch, inputs=inputs, labels=labels, host=host)


def _in_dtype_of(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    dtype = next(model.parameters()).dtype
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def _select(path: str, hidden: Tensor, attended: Tensor | None, batch: Batch, layout: Layout | None) -> Tensor:
    """Attended positions of a text model's `[B, L, D]`, or packed `[1, S, D]`, as `[P, D]`; of images, all there is."""
    if attended is None:
        return hidden
    if layout is not None and hidden.dim() == 3 and hidden.shape[:2] == (1, len(layout.slots)):
        return hidden[0].index_select(0, layout.attended)
    texts = batch.inputs["input_ids"].flatten(0, -2).shape
    if hidden.dim() != 3 or hidden.shape[:2] != texts:
        shape = list(hidden.shape)
        raise UserError(
            "loss.term",
            path,
            f"gives {shape}, not one vector per position {[*texts, 'width']}.",
            "Tap a module whose output is the hidden state of a layer; list them: potstill inspect student=...",
        )
    return hidden.flatten(0, 1).index_select(0, attended)
