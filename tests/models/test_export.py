from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from potstill.data.batch import Batch
from potstill.models.export import export, load_exported
from potstill.models.forward import forward
from potstill.models.task import TASKS
from potstill.signals.protocol import Needs

from .test_tokenizers import tokenizer
from .tiny import causal_batch, image_batch, text_batch, tiny_model

TEXTS = [[5, 6, 7, 8, 9], [10, 11, 12]]
EXAMPLES = {
    "text_classification": ("bert", text_batch(TEXTS, [0, 1])),
    "image_classification": ("vit", image_batch(2)),
    "causal_lm": ("gpt2", causal_batch(TEXTS, [1, 0])),
}


def logits(model: torch.nn.Module, task: str, batch: Batch) -> torch.Tensor | None:
    with torch.no_grad():
        return forward(model, batch, TASKS[task], Needs(logits=True)).logits


@pytest.mark.parametrize("task", EXAMPLES)
def test_an_exported_student_is_the_student(task: str, tmp_path: Path) -> None:
    model_type, batch = EXAMPLES[task]
    student = tiny_model(model_type, task)
    export(student, None, None, tmp_path / "student")
    loaded = load_exported(tmp_path / "student", TASKS[task])
    assert not loaded.training
    assert torch.equal(logits(loaded, task, batch), logits(student, task, batch))  # type: ignore[arg-type]


def test_weights_come_from_the_checkpoint_and_nothing_else_does(tmp_path: Path) -> None:
    trained, student = (tiny_model("bert", "text_classification", seed=seed) for seed in (1, 2))
    state = {f"student.{name}": value for name, value in trained.state_dict().items()}
    torch.save({"state_dict": {**state, "objective.terms.mine.weight": torch.ones(3)}}, tmp_path / "best.ckpt")
    export(student, tmp_path / "best.ckpt", None, tmp_path / "student")
    written = load_file(tmp_path / "student" / "model.safetensors")
    assert written.keys() == trained.state_dict().keys()
    for state in (written, student.state_dict()):
        assert all(torch.equal(value, trained.state_dict()[name]) for name, value in state.items())


def test_a_checkpoint_of_another_student_is_not_exported_in_part(tmp_path: Path) -> None:
    student = tiny_model("bert", "text_classification")
    state = {f"student.{name}": value for name, value in list(student.state_dict().items())[:-1]}
    torch.save({"state_dict": state}, tmp_path / "best.ckpt")
    with pytest.raises(RuntimeError, match="Missing key"):
        export(student, tmp_path / "best.ckpt", None, tmp_path / "student")
    assert not (tmp_path / "student").exists()


def test_the_tokenizer_lies_beside_the_weights(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    own = tokenizer()
    export(tiny_model("bert", "text_classification"), None, own, tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == own.get_vocab()
