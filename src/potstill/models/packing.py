"""A text model's layers without padding: texts of a padded batch side by side, each attending to itself alone.

Embeddings, norms after the last layer and heads see the padded batch as always, so that positions, the first or last
token that a classifier reads, and whatever else an architecture does outside of its layers stay what they are. Between
the first layer and the last, hidden states are `[1, S, D]`. Attention knows where a text ends (`packed_attention.py`).
"""

# B texts, L length, S slots, P attended positions, D width

from __future__ import annotations

import functools
import inspect
import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import PreTrainedModel

from potstill.data.slots import slot_lengths
from potstill.errors import UserError
from potstill.models.packed_attention import FLEX, GROUPS, Group, GroupMasks, Rule, attending, group_masks
from potstill.models.taps import bare

log = logging.getLogger(__name__)

MASK = "attention_mask"
SPLIT = "sdpa"  # the attention that `groups` splits by text
PAYS_FROM = 0.9  # slots a position of the padded batch: above it, what is saved is not worth the splitting
PROBE = (7, 4, 2, 4)  # tokens a text
TOLERANCE, TOLERANCE_16_BIT = 1e-4, 5e-2  # of the largest hidden state


@dataclass(frozen=True)
class Layout:
    """Where the texts of a padded batch `[B, L]` lie, side by side.

    slots: `[S]`, flat indices into B*L. attended: `[P]`, of the attended positions, in the order of the batch, indices
        into S.
    groups: texts of one length, one group behind the other; None: each text has the slots it needs, and no group.
    """

    shape: tuple[int, int]
    slots: Tensor
    attended: Tensor
    groups: tuple[Group, ...] | None

    def packed(self, states: Tensor) -> Tensor:
        """`[B, L, ...]`, or `[1, L, ...]` for all texts alike, as `[1, S, ...]`."""
        index_S = self.slots if len(states) > 1 else self.slots % self.shape[1]
        return states.flatten(0, 1).index_select(0, index_S).unsqueeze(0)

    def padded(self, states_1SD: Tensor) -> Tensor:
        """`[B, L, D]`, zeros where no slot lies."""
        num_texts, num_columns = self.shape
        empty = states_1SD.new_zeros(num_texts * num_columns, states_1SD.shape[-1])
        return empty.index_copy(0, self.slots, states_1SD[0]).view(num_texts, num_columns, -1)

    def masks(self, mask: Rule | Tensor | None) -> GroupMasks | BlockMask:
        """What layers get for a model's mask."""
        if self.groups is not None:
            return group_masks(mask, self.groups)
        if not isinstance(mask, Rule):
            raise NotImplementedError("it makes its masks by itself")
        return mask.of_slots(self.slots, self.shape[1])


def layout_of(mask_BL: Tensor, device: torch.device | None = None, kind: str = GROUPS) -> Layout | None:
    """For states on `device` (None: where the mask is); None where too little of a right-padded batch is padding."""
    lengths_B, num_columns = mask_BL.sum(dim=1).cpu().numpy(), mask_BL.shape[1]
    slots_B = slot_lengths(lengths_B) if kind == GROUPS else lengths_B.clip(1)
    if not len(slots_B) or slots_B.sum() > PAYS_FROM * mask_BL.numel():
        return None
    order_B = np.argsort(-slots_B, kind="stable")
    starts_B = np.empty_like(slots_B)
    starts_B[order_B] = slots_B[order_B].cumsum() - slots_B[order_B]
    device = device or mask_BL.device
    return Layout(
        shape=(len(slots_B), num_columns),
        slots=_on(_ranges(order_B * num_columns, slots_B[order_B]), device),
        attended=_on(_ranges(starts_B, lengths_B), device),
        groups=tuple(_groups(order_B, slots_B, lengths_B, device)) if kind == GROUPS else None,
    )


def _groups(order_B: np.ndarray, slots_B: np.ndarray, lengths_B: np.ndarray, device: torch.device) -> Iterator[Group]:
    bounds = [0, *(np.flatnonzero(np.diff(slots_B[order_B])) + 1).tolist(), len(order_B)]
    for first, last in itertools.pairwise(bounds):
        texts = order_B[first:last]
        length = int(slots_B[texts[0]])
        yield Group(_on(texts, device), length, has_gaps=bool((lengths_B[texts] < length).any()))


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """`[start, start + 1, ...]` of each length, one after another."""
    return np.arange(lengths.sum()) + np.repeat(starts - (lengths.cumsum() - lengths), lengths)


def _on(index: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(index).to(device, non_blocking=True)


def set_packing(model: PreTrainedModel, choice: str, who: str, *, kind: str = GROUPS, is_trained: bool = False) -> None:
    """Let `model` pack its batches where `hardware.packing` (`auto | on | off`) says so, before anything wraps it.

    auto: where its architecture can, which is tried out. on: UserError where it cannot. kind: of the attention,
    `groups | flex`; flex: UserError where it cannot, under either.
    """
    reason = None if choice == "off" else why_not(model, kind, is_trained=is_trained)
    if reason and (choice == "on" or kind == FLEX):
        problem = f"is not to be had: the {who} ({type(model).__name__}) {reason}."
        if kind == FLEX:
            raise UserError("hardware.packed_attention", FLEX, problem, "Set hardware.packed_attention=groups")
        raise UserError("hardware.packing", choice, problem, "Set hardware.packing=auto, which pads where it has to.")
    if reason:
        log.info("The %s computes padding as well: it %s.", who, reason)
    model.packs_texts = kind if choice != "off" and not reason else None  # type: ignore[assignment]


def packs(model: nn.Module) -> bool:
    return packed_by(model) is not None


def packed_by(model: nn.Module) -> str | None:
    """The kind of its attention; None: it computes padding."""
    return getattr(bare(model), "packs_texts", None)


def why_not(model: PreTrainedModel, kind: str = GROUPS, *, is_trained: bool = False) -> str | None:
    """Why the layers of `model` cannot go without padding; None where they can."""
    implementation = model.config._attn_implementation
    if kind == GROUPS and implementation != SPLIT:
        return f"has attn_implementation={implementation}, and only {SPLIT} knows packed texts"
    layers = stack(model)
    if not layers or not all(MASK in _parameters(type(each)) for each in layers):
        return "has no list of layers that take an attention mask"
    return _tried_out(model, kind, is_trained=is_trained)


def stack(model: nn.Module) -> list[nn.Module]:
    """The layers of a text model, one after another."""
    base = cast(PreTrainedModel, bare(model)).base_model
    number = getattr(base.config, "num_hidden_layers", None)
    lists = [each for each in base.modules() if isinstance(each, nn.ModuleList) and len(each) == number]
    return list(lists[0]) if len(lists) == 1 else []


@torch.no_grad()
def _tried_out(model: PreTrainedModel, kind: str, *, is_trained: bool) -> str | None:
    """What goes wrong with the last hidden states of a few short texts, packed; None where they are as padded."""
    mask_BL = (torch.arange(max(PROBE)) < torch.tensor(PROBE).unsqueeze(1)).long().to(model.device)
    content = 1 + torch.arange(mask_BL.numel(), device=model.device).view_as(mask_BL) % (model.config.vocab_size - 1)
    inputs = {"input_ids": content * mask_BL, "attention_mask": mask_BL}
    was_training = model.training
    model.eval()
    expected = model.base_model(**inputs)[0][mask_BL.bool()]
    try:
        with _hooked(model, layout_of(mask_BL, kind=kind)):
            found = model.base_model(**inputs)[0][mask_BL.bool()]
            if is_trained and kind == FLEX:
                _run_in_training(model, inputs)
    except Exception as error:  # whatever it is, this architecture is one that cannot
        return f"fails without padding ({str(error).splitlines()[0]})"
    finally:
        model.train(was_training)
    exactness = TOLERANCE if expected.dtype == torch.float32 else TOLERANCE_16_BIT
    is_same = (found - expected).abs().max() <= exactness * expected.abs().max()
    return None if is_same else "computes something else without padding"


def _run_in_training(model: PreTrainedModel, inputs: dict[str, Tensor]) -> None:
    """Fails where attention has to drop something out that it cannot; what it draws, nobody misses."""
    with torch.random.fork_rng(devices=[]):
        model.train().base_model(**inputs)


@contextmanager
def packed(model: nn.Module, mask: Tensor | None, device: torch.device) -> Iterator[Layout | None]:
    """Inside, `model`, where it packs, runs its layers on `device` on the attended positions of `mask`, right-padded,
    alone.

    mask: `[B, L]`, or `[B, K, L]` of texts that the model sees side by side; best on the CPU, where it is counted.
    Gives the layout; None: nothing is packed.
    """
    kind, layout = packed_by(model), None
    if mask is not None and kind is not None:
        layout = layout_of(mask.flatten(0, -2), device, kind)
    with _hooked(model, layout):
        yield layout


@contextmanager
def _hooked(model: nn.Module, layout: Layout | None) -> Iterator[None]:
    if layout is None:
        yield
        return
    layers, pack = stack(model), _packing(layout)
    with attending(cast(PreTrainedModel, bare(model))), ExitStack() as hooks:
        for layer in layers:
            hooks.enter_context(layer.register_forward_pre_hook(pack, with_kwargs=True))
        hooks.enter_context(layers[-1].register_forward_hook(_unpacking(layout)))
        yield


def _packing(layout: Layout) -> Callable[..., Any]:
    """A hook that packs what a layer is given, once for all layers."""
    seen: dict[int, tuple[Any, Any]] = {}  # by identity, and kept so that none is reused

    def once(value: Any, make: Callable[[Any], Any]) -> Any:
        if id(value) not in seen:
            seen[id(value)] = value, make(value)
        return seen[id(value)][1]

    def pack(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(pack(each) for each in value)
        has_texts = isinstance(value, Tensor) and value.shape[:2] in (layout.shape, (1, layout.shape[1]))
        return once(value, layout.packed) if has_texts else value

    def replaced(name: str, value: Any) -> Any:
        return once(value, layout.masks) if name == MASK else pack(value)

    def hook(layer: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict]:
        named = tuple(zip(_parameters(type(layer)), args, strict=False))
        options = options if MASK in dict(named) else {MASK: None} | options
        given = tuple(replaced(name, value) for name, value in named)
        return given, {name: replaced(name, value) for name, value in options.items()}

    return hook


@functools.cache
def _parameters(kind: type[nn.Module]) -> tuple[str, ...]:
    """Of its forward, without `self`."""
    return tuple(inspect.signature(kind.forward).parameters)[1:]


def _unpacking(layout: Layout) -> Callable[..., Any]:
    def hook(_layer: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return layout.padded(output)
        return layout.padded(output[0]), *output[1:]

    return hook
