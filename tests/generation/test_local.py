"""A model that is loaded here and generates: no server, nothing made up."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from potstill.errors import UserError
from potstill.generation.local import TransformersTeacher
from tests.generation.servers import overrides, prompts_file, tiny_chat_model
from tests.generation.test_generate import dropped, exported

ROWS = ["a row", "a rather longer row of words", "b"]
KEEP_ALL = [f"generation.filters.{name}=null" for name in ("truncated", "empty", "duplicate")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_chat_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def teacher(model: str) -> TransformersTeacher:
    return TransformersTeacher(model, device="cpu")


@pytest.fixture
def given(model: str, tmp_path: Path) -> list[str]:
    """What a command line needs at least."""
    remote = ("teacher.endpoint.base_url=", "teacher.endpoint.api_key_env=")
    own = [text for text in overrides("", prompts_file(tmp_path, ROWS)) if not text.startswith(remote)]
    return ["teacher=local_text", f"teacher.endpoint.path={model}", "teacher.endpoint.device=cpu", *own, *KEEP_ALL]


def by_itself(model: str, text: str) -> str:
    """What the model says to one prompt, greedily, without padding."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    chat = [{"role": "user", "content": text}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    network: Any = AutoModelForCausalLM.from_pretrained(model)
    ids = network.generate(**inputs, max_new_tokens=16, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(ids, skip_special_tokens=True)


def choice(teacher: TransformersTeacher, **body: Any) -> dict[str, Any]:
    """The one choice of its reply to a chat, unless `body` has a prompt."""
    asked = {} if "prompt" in body else {"messages": [{"role": "user", "content": "a row"}]}
    reply = asyncio.run(teacher.send(json.dumps({"model": "m", "max_tokens": 16, **asked, **body})))
    assert reply.status == 200
    return json.loads(reply.raw)["choices"][0]


@pytest.mark.slow
def test_prompts_of_unequal_length_are_answered_as_each_would_be_alone_and_once(model, given, potstill, monkeypatch):
    assert potstill("generate", *given, "teacher.endpoint.batch_size=3").code == 0
    said = {row["prompt"]: row["raw"] for row in exported()}
    assert dropped() == {}
    assert said == {text: by_itself(model, text) for text in ROWS}
    assert len(set(said.values())) == len(ROWS), "texts that do not depend on the prompt show nothing"
    monkeypatch.setattr(TransformersTeacher, "answer", lambda *_: pytest.fail("it is in the ledger"))
    assert potstill("generate", *given, "run.dir=again").code == 0
    assert exported("again") == exported()


@pytest.mark.slow
def test_a_tokenizer_without_a_chat_template_is_told_of(model, given, tmp_path, potstill):
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "plain")
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(tmp_path / "plain")
    plain = [*given, f"teacher.endpoint.path={tmp_path / 'plain'}"]
    outcome = potstill("generate", *plain)
    assert (outcome.code, "Set generation.api=completions" in outcome.words) == (2, True)
    assert potstill("generate", *plain, "generation.api=completions").code == 0
    assert len(exported()) == len(ROWS)


@pytest.mark.slow
@pytest.mark.thorough
def test_an_option_that_a_local_model_lacks_is_no_silent_200(given, potstill):
    outcome = potstill("generate", *given, "+generation.body.logprobs=true")
    assert "a local model does not take logprobs" in outcome.words
    assert outcome.code != 0


def test_samples_differ_from_one_another_and_a_seed_draws_them_again(teacher):
    first, again, other = (choice(teacher, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["message"] != other["message"]
    assert choice(teacher, temperature=0.0) == choice(teacher, temperature=0.0)


def test_a_narrow_nucleus_leaves_the_likeliest_token(teacher):
    greedy = choice(teacher, temperature=0.0)
    assert choice(teacher, temperature=1.0, top_p=1e-9, seed=1) == greedy
    assert choice(teacher, temperature=1.0, top_p=1.0, seed=1) != greedy


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(teacher):
    whole = choice(teacher, temperature=0.0)
    text = whole["message"]["content"]
    stopped = choice(teacher, temperature=0.0, stop=[text[3]])
    assert stopped["message"]["content"] == text[: text.index(text[3])]
    assert (whole["finish_reason"], stopped["finish_reason"]) == ("length", "stop")


def test_a_plain_prompt_is_continued_without_a_chat_template(teacher):
    chat = choice(teacher, temperature=0.0)["message"]["content"]
    plain = choice(teacher, temperature=0.0, prompt="a row")["text"]
    assert plain != chat
    assert choice(teacher, temperature=0.0, prompt="user: a row\nassistant: ")["text"] == chat


def test_a_path_or_a_type_that_cannot_be_is_refused_with_its_key(tmp_path):
    with pytest.raises(UserError, match=r"teacher\.endpoint\.path=.* cannot be loaded as a causal language model"):
        TransformersTeacher(str(tmp_path))
    with pytest.raises(UserError, match=r"teacher\.endpoint\.dtype='float' is no such type"):
        TransformersTeacher(str(tmp_path), dtype="float")


def test_weights_are_of_the_type_that_was_asked_for(model):
    assert TransformersTeacher(model, dtype="bfloat16", device="cpu").model.dtype is torch.bfloat16
