"""Which prompts of a test set are answered, by whom, and what is refused before any is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from datasets import Dataset

from potstill.commands.answers import Plan, plan_answers
from potstill.commands.shared import Source
from potstill.config.schema import AnswersConfig, ColumnsConfig
from potstill.errors import UserError
from potstill.evaluation.predict import ModelUnderTest
from potstill.models.task import TASKS
from tests.data import examples
from tests.models.tiny import tiny_model

NUMBERS = list(range(12))
TOKENIZER = examples.tokenizer()
MODELS = {"student": ModelUnderTest(tiny_model("gpt2", "causal_lm"))}


def table(numbers: Sequence[int], ending: str) -> Dataset:
    columns = {"q": [f"which {number} is it? " for number in numbers], "a": [f"it is{ending}{n}" for n in numbers]}
    return Dataset.from_dict({**columns, "word": ["mill"] * len(numbers)})


def source(numbers: Sequence[int] = NUMBERS, ending: str = " #### ", **columns: str) -> Source:
    names = ColumnsConfig(**(columns or {"prompt": "q", "completion": "a"}))
    config = examples.config(task="causal_lm", columns=names, slices=[], max_length=30)
    made = table(numbers, ending)
    data = examples.build(dict.fromkeys(("train", "validation", "test"), made), config, tokenizer=TOKENIZER)
    return Source(TASKS["causal_lm"], data, None, TOKENIZER)


def plan(made: Source, **options: Any) -> Plan:
    found = plan_answers(AnswersConfig(**options), MODELS, made)
    assert found is not None
    return found


def test_a_limit_takes_the_same_prompts_however_the_file_is_sorted():
    forwards, backwards = (plan(source(order), limit=5) for order in (NUMBERS, NUMBERS[::-1]))
    assert sorted(forwards.prompts.references) == sorted(backwards.prompts.references)
    assert len(forwards.prompts.references) == 5
    assert forwards.num_prompts == 12
    assert set(plan(source(), limit=3).prompts.references) < set(forwards.prompts.references)
    assert len(plan(source(), limit=None).prompts.references) == 12
    assert plan_answers(AnswersConfig(limit=0), MODELS, source()) is None


def test_a_prompt_is_what_the_student_saw_before_the_answer():
    found = plan(source(), limit=None)
    table = source().data.examples["test"]
    for place, example in enumerate(found.prompts.example.tolist()):
        assert TOKENIZER.decode(found.prompts.ids[place], skip_special_tokens=True) == table["prompt"][example]
        assert found.prompts.references[place] == table["completion"][example]


def conversation(number: int, *, num_turns: int = 2) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": f"which {number}"}, {"role": "assistant", "content": f"#### {number}"}]
    return turns * (num_turns // 2) + turns[: num_turns % 2]


def chats(*conversations: list[dict[str, str]], template: str = examples.CHAT) -> Source:
    tokenizer = examples.tokenizer(chat_template=template)
    config = examples.config(task="causal_lm", columns=ColumnsConfig(messages="m"), slices=[], max_length=64)
    made = Dataset.from_dict({"m": list(conversations)})
    data = examples.build(dict.fromkeys(("train", "validation", "test"), made), config, tokenizer=tokenizer)
    return Source(TASKS["causal_lm"], data, None, tokenizer)


def test_of_a_conversation_the_last_answer_is_asked_for(caplog):
    begun, unanswered = conversation(2, num_turns=3), conversation(3)[:1]
    long = [*conversation(4), {"role": "user", "content": "rent " * 70}, *conversation(5)[1:]]
    made = chats(conversation(1), conversation(6, num_turns=4), begun, unanswered, long)
    found = plan(made, limit=None)
    assert found.prompts.example.tolist() == [0, 1, 2], "of the others one has no answer, and one no room for it"
    assert found.prompts.references == ["#### 1", "#### 6", "#### 2"]
    said = [str(TOKENIZER.decode(ids)) for ids in found.prompts.ids]
    assert said[0] == "[user] which 1\n[assistant] "
    assert said[1] == "[user] which 6\n[assistant] #### 6\n[user] which 6\n[assistant] "
    assert said[2] == "[user] which 2\n[assistant] "
    assert (found.judged_by, found.num_prompts) == ("number", 4)
    assert len(plan(made, limit=1).prompts.ids) == 1
    assert plan_answers(AnswersConfig(), MODELS, chats(long)) is None
    assert "leaves room for an answer" in caplog.text


def test_the_mark_at_the_end_of_a_turn_ends_an_answer():
    marked = examples.CHAT.replace("\n{% endfor", "<|end|>\n{% endfor")
    assert plan(chats(conversation(1), template=marked)).prompts.ends == (TOKENIZER.eos_token_id,)
    assert plan(chats(conversation(1))).prompts.ends == ()
    assert plan(source()).prompts.ends == ()


@pytest.mark.parametrize(
    ("ending", "answer", "judged_by", "has_form"),
    [
        (" #### ", None, "number", True),
        (" ", None, "none", False),
        (" ", "number", "number", False),
        (" #### ", "text", "text", False),
    ],
)
def test_answers_are_judged_by_their_number_where_references_mark_one(ending, answer, judged_by, has_form):
    found = plan(source(ending=ending), answer=answer)
    assert (found.judged_by, found.form is not None) == (judged_by, has_form)
    assert plan(source(ending=ending), answer=answer, form="it").form == "it"


def test_all_models_get_the_room_that_the_smallest_has(caplog):
    longest = max(map(len, plan(source(), limit=None).prompts.ids))
    with caplog.at_level(logging.WARNING):
        found = plan(source(), max_new_tokens=2000)
    assert found.max_new_tokens == MODELS["student"].model.config.n_positions - longest  # type: ignore[union-attr,operator]
    assert "generate.max_new_tokens=2000" in caplog.text
    small = plan(source(), max_new_tokens=2, batch_size=3)
    assert (small.max_new_tokens, small.batch_size) == (2, 3)


def test_who_writes_nothing_is_named_with_the_reason():
    assert list(plan(source()).without) == ["teacher"]
    assert "teacher_path=PATH" in plan(source()).without["teacher"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": -1}, r"generate\.limit=-1 must be at least 0"),
        ({"max_new_tokens": 0}, r"generate\.max_new_tokens=0 must be at least 1"),
        ({"batch_size": 0}, r"generate\.batch_size=0 must be at least 1"),
        ({"answer": "numbr"}, r"generate\.answer='numbr'.*number"),
        ({"form": "("}, r"generate\.form='\('.*no regular expression"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said):
    with pytest.raises(UserError, match=f"(?s){said}"):
        plan(source(), **options)


def test_an_option_without_effect_is_refused():
    texts = source(text="q")
    assert plan_answers(AnswersConfig(), MODELS, texts) is None, "nothing was asked for"
    with pytest.raises(UserError, match=r"(?s)generate\.max_new_tokens=5 has no effect.*data\.columns\.prompt"):
        plan_answers(AnswersConfig(max_new_tokens=5), MODELS, texts)
    with pytest.raises(UserError, match=r"(?s)generate\.answer='number'.*no reference holds one"):
        plan(source(prompt="q", completion="word"), answer="number")
