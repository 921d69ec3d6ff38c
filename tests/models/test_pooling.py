from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from potstill.config.schema import TeacherConfig
from potstill.data.batch import Batch
from potstill.models.export import export, load_exported
from potstill.models.forward import forward
from potstill.models.load import load_teacher
from potstill.models.pooling import set_pooling
from potstill.models.task import TASKS
from potstill.signals.protocol import Needs

from .tiny import embedding_batch, tiny_model

TASK = TASKS["embedding"]
EMBEDDINGS = Needs(embeddings=True)
TEXTS = [[5, 6, 7, 8], [9, 10], [11, 12, 13], [14, 15, 16, 17, 18, 19]]
WAYS = [("cls", False), ("mean", False), ("last", False), ("mean", True)]


def encoder(pooling: str = "mean", *, normalise: bool = False, model_type: str = "bert") -> Any:
    model = tiny_model(model_type, "embedding", initializer_range=0.3)
    set_pooling(model.config, SimpleNamespace(pooling=pooling, normalise=normalise))  # type: ignore[arg-type]
    return model


def embed(model: Any, batch: Batch) -> torch.Tensor:
    embeddings = forward(model, batch, TASK, EMBEDDINGS).embeddings
    assert embeddings is not None
    return embeddings


@pytest.mark.parametrize("model_type", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize(("pooling", "normalise"), WAYS)
def test_an_embedding_is_that_of_the_text_alone(pooling: str, normalise: bool, model_type: str) -> None:
    model = encoder(pooling, normalise=normalise, model_type=model_type)
    found = embed(model, embedding_batch(TEXTS, [0] * 4, right=2))
    torch.testing.assert_close(embed(model, embedding_batch(TEXTS, [0] * 4, left=3)), found)
    for row, text in enumerate(TEXTS):
        hidden_LD = model(input_ids=torch.tensor([text])).last_hidden_state[0]
        wanted = {"cls": hidden_LD[0], "mean": hidden_LD.mean(dim=0), "last": hidden_LD[-1]}[pooling]
        wanted = torch.nn.functional.normalize(wanted, dim=0) if normalise else wanted
        torch.testing.assert_close(found[row, 0], wanted)
        torch.testing.assert_close(found[row - 1, 1], wanted)  # the positive of the example before it


def test_an_empty_batch_gives_no_embeddings_with_a_live_graph() -> None:
    model = encoder()
    embeddings = embed(model, embedding_batch(TEXTS, [0] * 4).empty())
    assert embeddings.shape == (0, 3, 16)
    embeddings.sum().backward()
    assert all(weight.grad is not None for name, weight in model.named_parameters() if "pooler" not in name)


def test_taps_of_an_encoder_give_the_attended_positions_of_all_texts() -> None:
    batch = embedding_batch(TEXTS, [0] * 4, right=2)
    output = forward(encoder(), batch, TASK, Needs(taps=("encoder.layer.1",)))
    assert output.embeddings is None
    assert output.hidden["encoder.layer.1"].shape == (3 * sum(map(len, TEXTS)), 16)
    positions = 3 * sum(map(len, TEXTS))
    assert TASK.count_rows(batch) == {"labelled": 4, "scored": 4, "positions": positions, "examples": 12}


def test_the_encoder_of_a_classifier_is_a_teacher_as_is_one_without_a_pooler(saved: Any, tmp_path: Path) -> None:
    path = saved()
    teacher = load_teacher(TeacherConfig(path=path, pooling="last", normalise=True), TASK)
    assert type(teacher).__name__ == "BertModel"
    assert (teacher.config.sentence_pooling, teacher.config.sentence_normalise) == ("last", True)
    AutoModel.from_pretrained(path, add_pooling_layer=False).save_pretrained(tmp_path)
    bare = load_teacher(TeacherConfig(path=str(tmp_path), pooling="last", normalise=True), TASK)
    batch = Batch(
        {"input_ids": torch.tensor([[[2, 3, 1]]]), "attention_mask": torch.ones(1, 1, 3)}, torch.zeros(1), ("",)
    )
    torch.testing.assert_close(embed(bare, batch), embed(teacher, batch))


@pytest.mark.parametrize(("pooling", "normalise"), WAYS)
def test_an_exported_encoder_gives_the_same_embeddings_in_sentence_transformers(
    pooling: str, normalise: bool, saved: Any, tmp_path: Path
) -> None:
    reason = "reads the folder as its users do; the extra `dev` has it"
    sentence_transformers = pytest.importorskip("sentence_transformers", reason=reason)
    path = saved(words=("eel", "cat", "dog", "owl"), initializer_range=0.3)
    tokenizer = AutoTokenizer.from_pretrained(path)
    student = load_teacher(TeacherConfig(path=path, pooling=pooling, normalise=normalise), TASK)
    export(student, None, tokenizer, tmp_path / "student", sentence_length=5)

    texts = ["eel", "cat dog owl", "owl owl eel cat dog dog dog cat"]  # the last is longer than five tokens
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "student"), device="cpu")
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=5, return_tensors="pt")
    batch = Batch(
        {name: inputs[name].unsqueeze(1) for name in ("input_ids", "attention_mask")}, torch.zeros(3), ("",) * 3
    )
    ours = embed(load_exported(tmp_path / "student", TASK), batch)[:, 0]
    torch.testing.assert_close(theirs.encode(texts, convert_to_tensor=True), ours, atol=1e-5, rtol=0.0)
