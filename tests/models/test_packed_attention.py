"""Texts side by side in one kernel: the padded result, whatever the architecture lets a text see of itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.nn.attention import flex_attention
from transformers import masking_utils

from potstill.errors import UserError
from potstill.losses.divergence import forward_kl
from potstill.models import packed_attention
from potstill.models.forward import forward
from potstill.models.packing import layout_of, packed_by, packs, set_packing
from potstill.models.task import TASKS

from .test_packing import KEYS, LENGTHS, batch_of, gradients
from .tiny import tiny_model

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "to both sides": ("bert", "text_classification", {}),
    "several texts an example": ("roberta", "embedding", {}),
    "causal": ("gpt2", "causal_lm", {"attn_pdrop": 0.0}),
    "keys shared by heads": ("llama", "causal_lm", KEYS["llama"]),
    "a window that slides": ("mistral", "causal_lm", {**KEYS["mistral"], "sliding_window": 3}),
    "scores that are capped": ("gemma2", "causal_lm", {"attn_logit_softcapping": 1.0, "sliding_window": 4}),
}


@pytest.fixture(autouse=True)
def gradients_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch refuses them for want of a kernel; of the arithmetic written out, which runs here, it has them."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)


@pytest.mark.parametrize("case", CASES)
def test_one_kernel_gives_the_padded_result(case: str) -> None:
    model_type, name, options = CASES[case]
    model, task, batch = tiny_model(model_type, name, **options), TASKS[name], batch_of(name, right=2)
    kind, outputs = "embeddings" if task.is_embedding else "logits", []
    for choice in ("off", "on"):
        set_packing(model, choice, "student", kind="flex")
        outputs.append(getattr(forward(model, batch, task, task.output), kind))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-6)
    target = torch.randn(outputs[0].shape, generator=torch.Generator().manual_seed(0)).flatten(0, -2)
    losses = [forward_kl(each.flatten(0, -2), target, temperature=2.0).sum() for each in outputs]
    padded, packed = (gradients(model, loss) for loss in losses)
    assert padded.keys() == packed.keys()
    for path, gradient in padded.items():
        torch.testing.assert_close(packed[path], gradient, rtol=1e-4, atol=1e-6, msg=path)


def test_one_kernel_has_no_slot_for_padding() -> None:
    mask_BL = torch.arange(max(LENGTHS)) < torch.tensor([*LENGTHS, 0]).unsqueeze(1)
    layout = layout_of(mask_BL, kind="flex")
    assert layout is not None
    assert len(layout.slots) == sum(LENGTHS) + 1  # one of the text of nothing


def test_attention_that_drops_something_out_is_refused_to_a_student_alone() -> None:
    model = tiny_model("bert", "text_classification", attention_probs_dropout_prob=0.1)
    state = torch.get_rng_state()
    with pytest.raises(UserError, match=r"(?s)hardware\.packed_attention='flex'.*`dropout`.*packed_attention=groups"):
        set_packing(model, "auto", "student", kind="flex", is_trained=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    set_packing(model, "auto", "teacher", kind="flex")
    assert packed_by(model) == "flex"


def test_an_architecture_that_cannot_is_refused_even_where_padding_would_do() -> None:
    model = tiny_model("deberta-v2", "text_classification")
    with pytest.raises(UserError, match=r"hardware\.packed_attention='flex' is not to be had: the teacher"):
        set_packing(model, "auto", "teacher", kind="flex")


def test_the_model_attends_as_before_afterwards() -> None:
    model = tiny_model("bert", "text_classification")
    set_packing(model, "on", "student", kind="flex")
    forward(model, batch_of("text_classification"), TASKS["text_classification"], TASKS["text_classification"].output)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("model_type", "num_masked"), [("gpt2", 0), ("bert", 1)])
def test_groups_have_a_mask_only_where_there_is_something_to_hide(
    model_type: str, num_masked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that need no mask are out of reach with one; and a whole one has as many numbers as tokens squared."""
    seen = []
    monkeypatch.setattr(
        *(packed_attention, "sdpa_mask"), lambda **given: seen.append(masking_utils.sdpa_mask(**given)) or seen[-1]
    )
    model, task = tiny_model(model_type, "text_classification"), TASKS["text_classification"]
    set_packing(model, "on", "student")
    assert packs(model)
    seen.clear()
    forward(model, batch_of("text_classification"), task, task.output)
    assert len(seen) == len(set(LENGTHS)) - 1  # the texts of 8 and 9 tokens are one group
    assert sum(mask is not None for mask in seen) == num_masked


@pytest.mark.thorough
def test_what_is_compiled_for_two_batches_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their lengths differ, and so do the functions that say what a text sees: each is made for one batch."""
    torch.compiler.reset()
    counter = CompileCounter()
    both: Any = (flex_attention.create_block_mask, flex_attention.flex_attention)
    make, attend = (torch.compile(each, backend=counter) for each in both)
    monkeypatch.setattr(packed_attention, "create_block_mask", make)
    for number in range(10):
        attended = torch.arange(60 + number) < torch.tensor([60 + number, 5 + 2 * number, 20, 3]).unsqueeze(1)
        sees = masking_utils.sliding_window_causal_mask_function(7)
        rule = packed_attention.rule(mask_function=sees, attention_mask=attended)
        layout = layout_of(attended, kind="flex")
        assert layout is not None
        blocks: Any = layout.masks(rule)
        with torch.no_grad():
            attend(*torch.randn(3, 1, 2, len(layout.slots), 16), block_mask=blocks)
    assert counter.frame_count == 4  # each for the first lengths, and for all others
