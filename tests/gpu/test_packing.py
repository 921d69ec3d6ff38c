"""Texts without padding on an accelerator: the padded result, by groups and in one kernel of blocks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from potstill.losses.divergence import forward_kl
from potstill.models.forward import forward
from potstill.models.packing import set_packing
from potstill.models.task import TASKS, Task
from tests.integration.distil import relative_difference
from tests.models.test_packing import batch_of, gradients
from tests.models.tiny import tiny_model

pytestmark = pytest.mark.gpu
SIZES = {"hidden_size": 64, "num_attention_heads": 2}  # heads of 32: the kernel has none below 16
CASES = {
    "to both sides": ("bert", "text_classification", {"intermediate_size": 32}),
    "several texts an example": ("roberta", "embedding", {"intermediate_size": 32}),
    "causal": ("gpt2", "causal_lm", {"attn_pdrop": 0.0}),
    "keys shared by heads": ("llama", "causal_lm", {"num_key_value_heads": 1}),
    "a window that slides": ("mistral", "causal_lm", {"num_key_value_heads": 2, "sliding_window": 3}),
}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # relative differences of whole gradients


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ["groups", "flex"])
@pytest.mark.parametrize("case", CASES)
def test_packed_texts_give_the_padded_result(
    case: str, kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    model_type, name, options = CASES[case]
    task, model = TASKS[name], tiny_model(model_type, name, **SIZES, **options).to("cuda", dtype)  # type: ignore[arg-type]
    padded, packed = (step(choice, kind, model, task) for choice in ("off", "on"))
    assert relative_difference(packed, padded) < TOLERANCE[dtype]


def step(choice: str, kind: str, model: PreTrainedModel, task: Task) -> dict[str, Tensor]:
    """Loss and gradients, on the CPU."""
    set_packing(model, choice, "student", kind=kind)
    output = forward(model, batch_of(task.name, right=2).to("cuda"), task, task.output)
    rows = getattr(output, "embeddings" if task.is_embedding else "logits").flatten(0, -2)
    target = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0)).to("cuda")
    loss = forward_kl(rows, target, temperature=2.0).sum()
    found = {"loss": loss.detach(), **gradients(model, loss)}
    return {path: value.cpu().float() for path, value in found.items()}
