"""What a chat model is asked, and where its answer ends."""

from __future__ import annotations

import pytest

from potstill.data.sequences import Messages, conversations
from potstill.data.turns import last_answer, opening, turn_end
from potstill.errors import UserError
from tests.data.examples import CHAT, tokenizer
from tests.data.test_sequences import MESSAGES

ENDED = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}<|turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.mark.parametrize(
    ("messages", "place"),
    [(MESSAGES, 3), (MESSAGES[:3], 1), (MESSAGES[:1], None), (MESSAGES[1:2], None), (MESSAGES[1:], 2), ([], None)],
)
def test_the_last_answer_is_one_that_something_was_asked_before(messages: Messages, place: int | None) -> None:
    assert last_answer(messages) == place


@pytest.mark.parametrize(("messages", "answer"), [(MESSAGES, 3), (MESSAGES[:3], 1)])
def test_a_model_is_asked_as_it_was_trained(messages: Messages, answer: int) -> None:
    """The template's mark of an answer included: without it a model would first have to say whose turn it is."""
    made = tokenizer(chat_template=CHAT)
    prompt = str(made.decode(opening(made, messages, answer)))
    (trained,) = conversations(made, [messages])
    assert prompt.endswith("[assistant] ")
    assert str(made.decode(trained.ids)).startswith(prompt + messages[answer]["content"])


def test_the_mark_behind_an_answer_ends_it_where_the_tokenizer_has_another_end() -> None:
    made = tokenizer(chat_template=ENDED)
    assert turn_end(made, MESSAGES, 3) is None, "to this tokenizer it is text like any other"
    made.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    end = turn_end(made, MESSAGES, 1)
    assert (end, end == made.eos_token_id) == (made.convert_tokens_to_ids("<|turn|>"), False)
    assert turn_end(tokenizer(chat_template=CHAT), MESSAGES, 3) is None


def test_a_tokenizer_without_a_template_is_the_users_to_mend() -> None:
    with pytest.raises(UserError, match="no chat template") as error:
        opening(tokenizer(), MESSAGES, 3)
    assert error.value.key == "student.tokenizer"
