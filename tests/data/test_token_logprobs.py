"""Log-probabilities that came with a text: whose tokens they are, and that they reach the loss as they were given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source, make_module
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.config.validate import validate
from potstill.data.token_logprobs import Vocabulary, all_known
from potstill.errors import UserError
from potstill.signals.protocol import Needs
from tests.data.examples import tokenizer
from tests.data.exports import export
from tests.generation.servers import tiny_chat_model

TOP = 5
TEXTS = {f"p{number}": ["pay rent", "caf\u00e9 b", "pay today"][number % 3] for number in range(30)}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_chat_model(tmp_path_factory.mktemp("teacher"))


@torch.no_grad()
def said(teacher: str) -> list[dict[str, Any]]:
    """What an endpoint with this model behind it says of the texts, in the form of its API."""
    model, tokens = AutoModelForCausalLM.from_pretrained(teacher), AutoTokenizer.from_pretrained(teacher)
    spelled = Vocabulary(tokens).bytes
    rows = []
    for prompt, text in TEXTS.items():
        before, ids = (tokens(each)["input_ids"] for each in (prompt, text))
        log_p = model(torch.tensor([before + ids])).logits[0, len(before) - 1 : -1].log_softmax(-1)
        content = [entry(spelled, token, row) for token, row in zip(ids, log_p, strict=True)]
        rows.append({"prompt": prompt, "raw": text, "logprobs": {"content": content}})
    return rows


def entry(spelled: dict[int, bytes], token: int, log_p_C: torch.Tensor) -> dict[str, Any]:
    def one(number: int) -> dict[str, Any]:
        text = spelled[number]
        return {"token": text.decode("utf-8", "replace"), "bytes": [*text], "logprob": float(log_p_C[number])}

    return {**one(token), "top_logprobs": [one(number) for number in log_p_C.topk(TOP).indices.tolist()]}


def assembled(path: str, tokens: str, *further: str) -> Any:
    given = ["data=generated", f"data.source.path={path}", "data.columns.logprobs=logprobs", "loss=kd", "teacher=none"]
    given += ["student=llama_stdlib_tiny", "student.config.hidden_size=16", "student.config.intermediate_size=32"]
    config = typed(composed("train", [*given, f"student.tokenizer={tokens}", *further]), TrainConfig)
    validate(config)
    objective = assemble_objective(config)
    source = assemble_source(config)
    models = assemble_models(config, source, objective)
    return make_module(config, source, models, objective), source


def test_a_student_of_logprobs_gets_what_its_teacher_gave(teacher: str, tmp_path: Path) -> None:
    module, source = assembled(export(tmp_path, said(teacher)), teacher)
    batch = next(iter(source.data.train_dataloader()))
    sparse = module.teacher.signal(batch, Needs(logits=True)).sparse
    model = AutoModelForCausalLM.from_pretrained(teacher)
    rows = module.task.scored_rows(batch)
    with torch.no_grad():
        expected_NC = model(**batch.inputs).logits.flatten(0, 1)[rows].log_softmax(-1)
    is_end = module.task.row_labels(batch) == source.tokenizer.eos_token_id
    known = torch.isfinite(sparse.log_p) & ~is_end.unsqueeze(-1)
    assert known.sum(dim=-1)[~is_end].min() >= TOP
    assert torch.allclose(sparse.log_p[known], expected_NC.gather(-1, sparse.ids)[known], atol=2e-3, rtol=1e-3)
    assert sparse.log_p[is_end, 0].tolist() == [0.0] * int(is_end.sum()), "nothing is said of the end: it is certain"
    loss, _ = module.objective(module.step_of(batch), module.task.count_rows(batch))
    assert 0 < loss.item() < 20
    assert len(module.teacher.signal(batch.empty(), Needs(logits=True)).sparse.ids) == 0


def test_tokens_that_the_student_cuts_otherwise_are_refused(teacher: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tokenizer().save_pretrained(other)
    with pytest.raises(UserError, match=r"does not fit the student's tokens in training example \d+: it has the token"):
        assembled(export(tmp_path, said(teacher)), str(other))


@pytest.mark.parametrize(
    ("further", "problem"),
    [
        (["teacher=pretrained", "teacher.path=x"], "teacher.path names another"),
        (["loss=dkd"], "needs the logits of all"),
        (["loss=minilm"], "needs more of a teacher"),
    ],
)
def test_what_some_classes_of_a_text_cannot_teach_is_refused(further, problem, teacher, tmp_path):
    with pytest.raises(UserError, match=problem) as caught:
        assembled(str(tmp_path), teacher, *further)
    assert caught.value.key == "data.columns.logprobs"


def test_other_tasks_have_no_tokens_to_know() -> None:
    given = ["data.columns.logprobs=logprobs", "data=clinc150"]
    with pytest.raises(UserError, match="it is of the tokens of a text"):
        validate(typed(composed("train", given), TrainConfig))


def test_the_token_that_was_said_is_known_though_it_is_not_among_the_top_and_strangers_are_left_to_the_tail() -> None:
    tokens = tokenizer()
    first, second = tokens("ab", add_special_tokens=False)["input_ids"]  # type: ignore[misc]
    tops = [{"token": "b", "logprob": -0.5}, {"token": "no such token", "logprob": -1.0}]
    content = [{"token": "a", "logprob": -2.0, "top_logprobs": tops}, {"token": "b", "logprob": -0.1}]
    known = Vocabulary(tokens).known(json.dumps({"content": content}), [first, second, tokens.eos_token_id])  # type: ignore[list-item]
    assert known.ids.tolist() == [second, first, second, tokens.eos_token_id]
    assert known.log_p.tolist() == pytest.approx([-0.5, -2.0, -0.1, 0.0])
    assert known.counts.tolist() == [2, 1, 1]


def test_a_row_without_a_record_is_its_own_tokens_and_a_record_that_ends_too_soon_is_refused() -> None:
    tokens = tokenizer()
    ids: Any = tokens("ab", add_special_tokens=False)["input_ids"]
    [known] = all_known(Vocabulary(tokens), [None], [ids])
    assert (known.ids.tolist(), np.exp(known.log_p).tolist()) == (ids, [1.0, 1.0])
    short = json.dumps({"content": [{"token": "a", "logprob": -1.0}]})
    with pytest.raises(UserError, match="ends before the token b'b'"):
        list(all_known(Vocabulary(tokens), [short], [ids]))


def test_tokens_of_sentencepiece_stand_for_their_bytes() -> None:
    backend = Tokenizer(models.BPE(vocab={"</s>": 0, "\u2581a": 1, "<0xC3>": 2}, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback()])  # type: ignore[assignment]
    tokens = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    assert Vocabulary(tokens).bytes == {0: b"</s>", 1: b" a", 2: b"\xc3"}


def test_a_tokenizer_that_does_not_say_its_bytes_is_refused(saved) -> None:
    with pytest.raises(UserError, match="does not say which bytes"):
        Vocabulary(AutoTokenizer.from_pretrained(saved()))
