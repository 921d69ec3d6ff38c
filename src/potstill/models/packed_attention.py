"""Attention of texts that lie side by side: each sees itself alone, and of itself what its model lets it see.

A model that packs, and asks transformers for its mask, gets a rule instead, which takes no memory (`Rule`). `groups`:
texts of one length go through SDPA together, with a mask only where a kernel does not know by itself what to hide.
`flex`: all texts go through one kernel, which leaves out the blocks where no text sees itself.
"""

# B texts, G texts of a group, L length, H heads, S slots, D width of a head

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "texts_side_by_side"  # what transformers calls it
GROUPS, FLEX = "groups", "flex"


@dataclass(frozen=True)
class Rule:
    """Which positions see which, before there is a mask.

    sees: of indices `(text, head, query, key)`, as transformers has it. attended: `[B, L]`, or None where all are.
    options: of `sdpa_mask`.
    """

    sees: Callable[..., Any]
    attended: Tensor | None
    options: dict[str, Any]

    def of_group(self, group: Group) -> Tensor | None:
        """`[G, 1, L, L]`; None where SDPA needs none.

        Gaps of a causal text need none: they are at its end, and what comes before does not see them. It is known
        beforehand which groups have gaps, so that no tensor is asked.
        """
        is_causal, attended = self.options["allow_is_causal_skip"], None
        if group.has_gaps and not is_causal and self.attended is not None:
            attended = self.attended.index_select(0, group.texts)[:, : group.length]
        options = self.options | {
            "batch_size": len(group.texts),
            **dict.fromkeys(("q_length", "kv_length"), group.length),
            "allow_is_bidirectional_skip": self.options.get("allow_is_bidirectional_skip", False) and attended is None,
        }

        def sees(text: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return self.sees(group.texts[text], head, query, key)

        return sdpa_mask(mask_function=sees, attention_mask=attended, **options)

    def of_slots(self, slots: Tensor, num_columns: int) -> BlockMask:
        """Of all texts at once. slots: `[S]`, flat indices into B * L."""
        text_S, column_S = slots // num_columns, slots % num_columns

        def sees(_batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            is_own = text_S[query] == text_S[key]
            return is_own & self.sees(text_S[query], head, column_S[query], column_S[key])

        create = create_block_mask if slots.device.type == "cpu" else _compiled_blocks()
        return create(sees, None, None, len(slots), len(slots), device=slots.device)


@dataclass(frozen=True)
class Group:
    """texts: `[G]`, numbers of those that have `length` slots each. has_gaps: not all of them fill these."""

    texts: Tensor
    length: int
    has_gaps: bool


@dataclass(frozen=True)
class GroupMasks:
    """What layers get for an attention mask: of each group, how many texts of what length, and their mask."""

    shapes: list[tuple[int, int]]
    masks: list[Tensor | None]


def group_masks(mask: Rule | Tensor | None, groups: Sequence[Group]) -> GroupMasks:
    """mask: the model's rule, or what it made of its own accord, `[B or 1, H or 1, L, L]`."""
    part = mask.of_group if isinstance(mask, Rule) else functools.partial(_part, mask)
    return GroupMasks([(len(group.texts), group.length) for group in groups], [part(group) for group in groups])


def _part(mask: Tensor | None, group: Group) -> Tensor | None:
    if mask is None:
        return None
    own = mask if len(mask) == 1 else mask.index_select(0, group.texts)
    return own[..., : group.length, : group.length]


@functools.cache
def _compiled_blocks() -> Callable[..., BlockMask]:
    """Without ever holding `[S, S]`."""
    return torch.compile(create_block_mask)


@contextmanager
def attending(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the layers of `model` attend side by side."""
    AttentionInterface.register(IMPLEMENTATION, attention)
    AttentionMaskInterface.register(IMPLEMENTATION, rule)
    before = model.config._attn_implementation
    model.config._attn_implementation = IMPLEMENTATION
    try:
        yield
    finally:
        model.config._attn_implementation = before


def rule(*, mask_function: Callable[..., Any], attention_mask: Tensor | None, **options: Any) -> Rule:
    """What transformers asks for a mask."""
    return Rule(mask_function, attention_mask, options)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """What transformers asks for attention. Of `[1, H, S, D]`, returns `[1, S, H, D]`."""
    attend: Callable[..., Tensor] = _by_blocks if isinstance(attention_mask, BlockMask) else _by_groups
    return attend(module, query, key, value, attention_mask, **options), None


def _by_groups(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, group_masks: GroupMasks, **options: Any
) -> Tensor:
    sizes = [number * length for number, length in group_masks.shapes]
    groups = zip(*(each[0].split(sizes, dim=1) for each in (query, key, value)), strict=True)
    found = []
    for states, shape, mask in zip(groups, group_masks.shapes, group_masks.masks, strict=True):
        queries, keys, values = (each.unflatten(1, shape).transpose(0, 1) for each in states)
        found.append(sdpa_attention_forward(module, queries, keys, values, mask, **options)[0].flatten(0, 1))
    return torch.cat(found).unsqueeze(0)


def _by_blocks(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, blocks: BlockMask, **options: Any
) -> Tensor:
    if query.device.type != "cpu":
        return flex_attention_forward(module, query, key, value, blocks, **options)[0]
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():  # only tried out: not worth compiling
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        return flex_attention_forward(module, query, key, value, blocks, **options)[0]
