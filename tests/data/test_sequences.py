from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from potstill.data.batch import IGNORE
from potstill.data.sequences import Tokens, conversations, plain, prompted
from potstill.errors import UserError
from tests.data.examples import CHAT, tokenizer, without_special_tokens

MESSAGES = [
    {"role": "user", "content": "where does the train stop"},
    {"role": "assistant", "content": "before the mill"},
    {"role": "user", "content": "and today"},
    {"role": "assistant", "content": "at noon"},
]
CHAT_WITH_BLOCKS = (
    "{% for message in messages %}[{{ message['role'] }}] {% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}\n{% endgeneration %}{% else %}{{ message['content'] }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def scored_text(made: PreTrainedTokenizerBase, tokens: Tokens) -> str:
    return str(made.decode([label for label in tokens.labels if label != IGNORE]))


def test_of_plain_text_every_token_is_scored_and_every_byte_counted() -> None:
    made, text = tokenizer(), "the mill, caf\u00e9 \u2192 noon"
    (tokens,) = plain(made, [text])
    assert tokens.ids == made(text)["input_ids"]
    assert all(tokens.scored)
    assert tokens.scored_bytes == len(text.encode())  # the token that begins the text is no byte of it


def test_bytes_of_a_first_token_that_nothing_predicts_do_not_count() -> None:
    """Else bits per byte would look better than they are."""
    made = without_special_tokens()
    (tokens,) = plain(made, ["train stop"])
    first = made.decode(tokens.ids[:1])
    assert tokens.num_rows == len(tokens.ids) - 1
    assert tokens.scored_bytes == len("train stop") - len(first)


def test_the_completion_is_scored_with_its_end_and_the_prompt_is_not() -> None:
    made = tokenizer()
    (tokens,) = prompted(made, ["where does the train stop"], [" before noon"])
    assert scored_text(made, tokens) == f" before noon{made.eos_token}"
    assert tokens.ids[0] == made.bos_token_id
    assert tokens.scored_bytes == len(" before noon")


def test_the_prompt_is_tokenised_as_a_model_that_answers_it_sees_it() -> None:
    made = tokenizer()
    (tokens,) = prompted(made, ["the tr"], ["ain"])
    prompt = made("the tr")["input_ids"]
    assert tokens.ids[: len(prompt)] == prompt
    assert tokens.labels[: len(prompt)] == [IGNORE] * len(prompt)


def test_no_token_is_invented_for_a_tokenizer_that_has_none() -> None:
    made = without_special_tokens()
    (tokens,) = prompted(made, ["rent"], [" today"])
    assert made.decode(tokens.ids) == "rent today"


def test_cutting_keeps_ids_scores_and_bytes_together() -> None:
    (tokens,) = prompted(tokenizer(), ["rent"], [" today"])
    short = tokens.cut(len(tokens.ids) - 1)  # without the end token
    assert len(short.ids) == len(short.scored) == len(short.num_bytes) == len(tokens.ids) - 1
    assert short.scored_bytes == len(" today")


@pytest.mark.parametrize("template", [CHAT, CHAT_WITH_BLOCKS], ids=["by prefix", "by generation blocks"])
def test_only_what_the_assistant_says_is_scored(template: str) -> None:
    made = tokenizer(chat_template=template)
    (tokens,) = conversations(made, [MESSAGES])
    expected = " before the mill\nat noon\n"  # " before" is one token of this vocabulary, " at" is two
    assert scored_text(made, tokens) == expected
    assert tokens.scored_bytes == len(expected)
    assert str(made.decode(tokens.ids)).startswith("[user] where does the train stop\n[assistant] before")


def test_both_ways_to_find_the_answers_agree() -> None:
    by_prefix = conversations(tokenizer(chat_template=CHAT), [MESSAGES, MESSAGES[:2]])
    by_template = conversations(tokenizer(chat_template=CHAT_WITH_BLOCKS), [MESSAGES, MESSAGES[:2]])
    assert by_prefix == by_template


def test_a_template_that_rewrites_earlier_turns_is_refused_rather_than_misaligned() -> None:
    """Some drop the reasoning of all but the last answer."""
    rewriting = "{% for message in messages %}{{ message['content'] if loop.last else '...' }}{% endfor %}"
    with pytest.raises(UserError, match="renders earlier turns anew"):
        conversations(tokenizer(chat_template=rewriting), [MESSAGES])


def test_a_tokenizer_without_template_and_a_refused_conversation_are_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="no chat template") as error:
        conversations(tokenizer(), [MESSAGES])
    assert error.value.key == "student.tokenizer"
    strict = "{{ raise_exception('the first turn must be the user') }}"
    with pytest.raises(UserError, match="the first turn must be the user") as error:
        conversations(tokenizer(chat_template=strict), [MESSAGES])
    assert error.value.key == "data.columns.messages"
    with pytest.raises(UserError, match="the assistant begins"):
        conversations(tokenizer(chat_template=CHAT), [MESSAGES[1:]])
